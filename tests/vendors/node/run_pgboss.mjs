// pg-boss 10 (with the argument pg-boss-10) and 12: see ../story.py.
import pg from "pg";
import { COMMAND, PACKAGE, STORY, TEN_YEARS, URL } from "./story.mjs";
import * as story from "./story.mjs";

const library = await import(PACKAGE ?? "pg-boss");
const PgBoss = library.PgBoss ?? library.default;
const boss = new PgBoss({ connectionString: URL, supervise: false, schedule: false });
boss.on("error", (error) => { throw error; });
const client = new pg.Client({ connectionString: URL });
const LEFT = `
  SELECT FROM pgboss.job WHERE name = ANY($1) AND (state = 'active' AND started_on >= $2
  OR state IN ('created', 'retry') AND start_after <= now())`;

async function take(kinds) {
  for (const kind of kinds) {
    const one = COMMAND === "build" && ["doomed", "slow", "flaky"].includes(kind);
    const options = { batchSize: one ? 1 : 50, pollingIntervalSeconds: 0.5 };
    await boss.work(kind, options, (jobs) => Promise.all(jobs.map((job) => story.act(kind, job.id))));
  }
}

async function work(kinds) { // until nothing can run
  const began = new Date();
  await take(kinds);
  while ((await client.query(LEFT, [kinds, began])).rowCount)
    await new Promise((resolve) => setTimeout(resolve, 50));
  for (const kind of kinds) await boss.offWork(kind);
}

async function build() {
  const sent = [];
  async function send(kind, count, options = {}) {
    const ids = [];
    for (let n = 0; n < count; n++) ids.push(await boss.send(kind, {}, { retryLimit: 0, ...options }));
    sent.push(...ids.map((id) => [kind, id]));
    return ids;
  }
  for (const kind of Object.keys(STORY)) await boss.createQueue(kind);
  await send("resize", story.DONE);
  await send("doomed", 4);
  for (const [kind, count] of [["slow", 3], ["flaky", 2]])
    await send(kind, count, { retryLimit: 4, retryDelay: TEN_YEARS });
  await work(["resize", "doomed", "slow", "flaky"]);
  await client.query("UPDATE pgboss.job SET start_after = now() WHERE name = 'flaky'");
  await send("resize", 6);
  await send("later", 5, { startAfter: TEN_YEARS });
  await boss.cancel("mail", (await send("mail", 9)).slice(0, 3));
  const dead = await send("hang", story.HUNG_BY_THE_DEAD);
  await story.killed(dead.length);
  const sign = PACKAGE ? "" : "heartbeat_on = now() - interval '1 day',"; // 10 has no such column
  const longAgo = `UPDATE pgboss.job SET ${sign} started_on = now() - interval '1 day'`;
  await client.query(`${longAgo} WHERE id = ANY($1)`, [dead]);
  await send("hang", story.HUNG_BY_THE_LIVING);
  await story.killed(story.HUNG_BY_THE_LIVING);

  const words = { completed: "completed", failed: "exhausted", cancelled: "skipped" };
  const jobs = [];
  for (const [kind, id] of sent) {
    const job = await boss.getJobById(kind, id);
    let state = words[job.state];
    if (["created", "retry"].includes(job.state))
      state = job.startAfter > new Date() ? "backing_off" : job.state === "retry" ? "retryable" : "pending";
    if (job.state === "active") // expires after so many seconds
      state = Date.now() - job.startedOn > 900_000 ? "stuck" : "running";
    jobs.push({ id, kind, state, error: job.output?.message ?? null });
  }
  story.tell(jobs);
}

await client.connect();
await boss.start();
if (COMMAND === "build") await build();
else if (COMMAND === "hang") await take(["hang"]);
else {
  await work(Object.keys(STORY));
  console.log(JSON.stringify(story.finished));
}
if (COMMAND !== "hang") {
  await boss.stop({ graceful: false });
  await client.end();
  process.exit(0);
}
