// pg-boss 10 (with the argument pg-boss-10) and 12: see ../runner.py.
import pg from "pg";
import { KINDS, PACKAGE, TEN_YEARS, URL, act, fails, live } from "./runner.mjs";

const library = await import(PACKAGE ?? "pg-boss");
const PgBoss = library.PgBoss ?? library.default;
const boss = new PgBoss({ connectionString: URL, supervise: false, schedule: false });
boss.on("error", (error) => { throw error; });
const client = new pg.Client({ connectionString: URL });
const LEFT = `
  SELECT FROM pgboss.job WHERE name = ANY($1) AND (state = 'active' AND started_on >= $2
  OR state IN ('created', 'retry') AND start_after <= now())`;
const STATES = { completed: "completed", failed: "exhausted", cancelled: "skipped" };
const sent = [];

async function take(kind) {
  const options = { batchSize: fails(kind) ? 1 : 50, pollingIntervalSeconds: 0.5 };
  await boss.work(kind, options, (jobs) => Promise.all(jobs.map((job) => act(kind, job.id))));
}

await client.connect();
await boss.start();
await live({
  async make() {
    for (const kind of KINDS) await boss.createQueue(kind);
  },
  async enqueue(kind) {
    const again = { retryLimit: 4, retryDelay: TEN_YEARS };
    const special = { slow: again, flaky: again, later: { startAfter: TEN_YEARS } }[kind];
    const id = await boss.send(kind, {}, { retryLimit: 0, ...special });
    sent.push([kind, id]);
    return id;
  },
  async work() {
    const began = new Date();
    const kinds = KINDS.filter((kind) => kind !== "hang");
    for (const kind of kinds) await take(kind);
    while ((await client.query(LEFT, [kinds, began])).rowCount)
      await new Promise((resolve) => setTimeout(resolve, 50));
    for (const kind of kinds) await boss.offWork(kind);
  },
  async hang() {
    await take("hang");
    await new Promise(() => {});
  },
  hasten: (kind) => client.query("UPDATE pgboss.job SET start_after = now() WHERE name = $1", [kind]),
  drop: (jobs) => boss.cancel("mail", jobs),
  async silence(jobs) {
    const sign = PACKAGE ? "" : "heartbeat_on = now() - interval '1 day',"; // 10 has no such column
    const longAgo = `UPDATE pgboss.job SET ${sign} started_on = now() - interval '1 day'`;
    await client.query(`${longAgo} WHERE id = ANY($1)`, [jobs]);
  },
  async tell() {
    const jobs = [];
    for (const [kind, id] of sent) {
      const job = await boss.getJobById(kind, id);
      let state = STATES[job.state];
      if (["created", "retry"].includes(job.state))
        state = job.startAfter > new Date() ? "backing_off" : job.state === "retry" ? "retryable" : "pending";
      if (job.state === "active") // expires after so many seconds
        state = Date.now() - job.startedOn > 900_000 ? "stuck" : "running";
      jobs.push([id, kind, state, job.output?.message ?? null]);
    }
    return jobs;
  },
});
await boss.stop({ graceful: false });
await client.end();
process.exit(0);
