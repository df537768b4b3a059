// The story of ../story.py, for vendors whose library is for Node: the same commands and answers.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

export const [COMMAND, URL, PACKAGE] = process.argv.slice(2);
export const DONE = 20;
export const HUNG_BY_THE_DEAD = 2;
export const HUNG_BY_THE_LIVING = 1;
export const TEN_YEARS = 3650 * 86400;
export const STORY = {
  resize: { completed: DONE, pending: 6 },
  doomed: { exhausted: 4 },
  slow: { backing_off: 3 },
  flaky: { retryable: 2 },
  later: { backing_off: 5 },
  mail: { pending: 6, skipped: 3 },
  hang: { stuck: HUNG_BY_THE_DEAD, running: HUNG_BY_THE_LIVING },
};
export const finished = [];

export async function act(kind, job) {
  if (COMMAND === "work") finished.push(String(job));
  else if (["doomed", "slow", "flaky"].includes(kind))
    throw new Error(`${kind}: track ${job} of 'Mo "X"' not found, HTTP 404 after 3.5 s`);
  else if (kind === "hang") {
    console.log(job);
    await new Promise((resolve) => setTimeout(resolve, 2 ** 31 - 1));
  }
}

export async function killed(jobs) {
  const command = [process.argv[1], "hang", URL, ...(PACKAGE ? [PACKAGE] : [])];
  const worker = spawn(process.execPath, command, { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: worker.stdout })[Symbol.asyncIterator]();
  for (let taken = 0; taken < jobs; taken++)
    if ((await lines.next()).done) throw new Error("the worker ended before it was killed");
  worker.kill("SIGKILL");
  await once(worker, "exit");
}

const counted = (pairs) => JSON.stringify(pairs.filter(([, , count]) => count).sort());

// jobs: {id, kind, state, error}; gone: the states of which this vendor keeps nothing.
export function tell(jobs, gone = []) {
  const expected = Object.entries(STORY).flatMap(([kind, states]) =>
    Object.entries(states).filter(([state]) => !gone.includes(state)).map((pair) => [kind, ...pair]),
  );
  const count = (kind, state) => jobs.filter((j) => j.kind === kind && j.state === state).length;
  const pairs = new Set(jobs.map((job) => `${job.kind} ${job.state}`));
  const found = [...pairs].map((pair) => [...pair.split(" "), count(...pair.split(" "))]);
  if (counted(found) !== counted(expected))
    throw new Error(`the vendor tells another story: ${counted(found)}`);
  console.log(JSON.stringify(jobs));
}
