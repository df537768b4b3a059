// graphile-worker: see ../runner.py. It deletes what is done and what is cancelled.
import { Logger, makeWorkerUtils, run, runOnce } from "graphile-worker";
import { KINDS, TEN_YEARS, URL, act, live } from "./runner.mjs";

const taskList = Object.fromEntries(
  KINDS.map((kind) => [kind, (_, helpers) => act(kind, helpers.job.id)]),
);
const shared = { connectionString: URL, logger: new Logger(() => () => {}) };
const utils = await makeWorkerUtils(shared);
const sql = (text, values) => utils.withPgClient((client) => client.query(text, values));
const later = new Date(Date.now() + TEN_YEARS * 1000);
const ids = {};

await live({
  make: () => utils.migrate(),
  async enqueue(kind) {
    const spec = { later: { runAt: later }, doomed: { maxAttempts: 1 } }[kind] ?? {};
    const { id } = await utils.addJob(kind, {}, spec);
    (ids[kind] ??= []).push(id);
    return id;
  },
  async work() {
    await runOnce({ ...shared, taskList });
    if (ids.slow) await utils.rescheduleJobs(ids.slow, { runAt: later });
  },
  hasten: (kind) => utils.rescheduleJobs(ids[kind], { runAt: new Date(Date.now() - 60_000) }),
  hang: async () => (await run({ ...shared, concurrency: 5, taskList: { hang: taskList.hang } })).promise,
  drop: (jobs) => utils.completeJobs(jobs),
  async silence(jobs) {
    const longAgo = "UPDATE graphile_worker._private_jobs SET locked_at = now() - interval '1 day'";
    await sql(`${longAgo} WHERE id = ANY($1::bigint[])`, [jobs]);
  },
  async tell() { // by its documented rules: taken again four hours after they were locked
    const { rows } = await sql("SELECT * FROM graphile_worker.jobs");
    return rows.map((job) => {
      let state = job.attempts > 0 ? "retryable" : "pending";
      if (job.locked_at) state = Date.now() - job.locked_at > 4 * 3_600_000 ? "stuck" : "running";
      else if (job.attempts >= job.max_attempts) state = "exhausted";
      else if (job.run_at > new Date()) state = "backing_off";
      return [job.id, job.task_identifier, state, job.last_error];
    });
  },
});
await utils.release();
