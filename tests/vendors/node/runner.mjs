// What ../runner.py is, for vendors whose library is for Node.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

export const [URL, STEPS, PACKAGE] = process.argv.slice(2);
export const TEN_YEARS = 3650 * 86400;
export const KINDS = ["resize", "doomed", "slow", "flaky", "later", "mail", "hang"];
const finished = [];
let succeeding = false;

export const fails = (kind) => !succeeding && ["doomed", "slow", "flaky"].includes(kind);

export async function act(kind, job) {
  if (succeeding) finished.push(String(job));
  else if (fails(kind))
    throw new Error(`${kind}: track ${job} of 'Mo "X"' not found, HTTP 404 after 3.5 s`);
  else if (kind === "hang") {
    console.log(job);
    await new Promise((resolve) => setTimeout(resolve, 2 ** 31 - 1));
  }
}

async function killed(jobs) {
  const command = [process.argv[1], URL, "hang", ...(PACKAGE ? [PACKAGE] : [])];
  const worker = spawn(process.execPath, command, { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: worker.stdout })[Symbol.asyncIterator]();
  for (let taken = 0; taken < jobs; taken++)
    if ((await lines.next()).done) throw new Error("the worker ended before it was killed");
  worker.kill("SIGKILL");
  await once(worker, "exit");
}

export async function live(vendor) {
  const steps = {
    ...vendor,
    async add(kind, count) {
      const ids = [];
      for (let n = 0; n < count; n++) ids.push(await vendor.enqueue(kind));
      return ids;
    },
    async cancel(kind, count) { await vendor.drop(await steps.add(kind, count)); },
    async lose(dead, alive) {
      const jobs = await steps.add("hang", dead);
      await killed(dead);
      await steps.add("hang", alive);
      await killed(alive);
      await vendor.silence(jobs);
    },
    async finish() {
      succeeding = true;
      await vendor.work();
      return finished;
    },
  };
  let result;
  for (const words of STEPS.split("; ")) {
    const [step, ...values] = words.split(" ");
    result = await steps[step](...values);
  }
  console.log(JSON.stringify(result));
}
