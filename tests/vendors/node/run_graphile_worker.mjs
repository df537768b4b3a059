// graphile-worker: see ../story.py. It deletes what is done and what is cancelled.
import { Logger, makeWorkerUtils, run, runOnce } from "graphile-worker";
import { COMMAND, STORY, TEN_YEARS, URL } from "./story.mjs";
import * as story from "./story.mjs";

const logger = new Logger(() => () => {});
const taskList = Object.fromEntries(
  Object.keys(STORY).map((kind) => [kind, (_, helpers) => story.act(kind, helpers.job.id)]),
);
const utils = await makeWorkerUtils({ connectionString: URL, logger });
const sql = (text, values) => utils.withPgClient((client) => client.query(text, values));
const later = new Date(Date.now() + TEN_YEARS * 1000);
const soon = new Date(Date.now() - 60_000);

async function add(kind, count, spec = {}) {
  const ids = [];
  for (let n = 0; n < count; n++) ids.push((await utils.addJob(kind, {}, spec)).id);
  return ids;
}

async function build() {
  await utils.migrate();
  await add("resize", story.DONE);
  await add("doomed", 4, { maxAttempts: 1 });
  const slow = await add("slow", 3);
  const flaky = await add("flaky", 2);
  await runOnce({ connectionString: URL, logger, taskList });
  await utils.rescheduleJobs(slow, { runAt: later });
  await utils.rescheduleJobs(flaky, { runAt: soon });
  await add("resize", 6);
  await add("later", 5, { runAt: later });
  await utils.completeJobs((await add("mail", 9)).slice(0, 3));
  await add("hang", story.HUNG_BY_THE_LIVING); // first: any worker takes what is locked for long
  await story.killed(story.HUNG_BY_THE_LIVING);
  const dead = await add("hang", story.HUNG_BY_THE_DEAD);
  await story.killed(dead.length);
  const longAgo = "UPDATE graphile_worker._private_jobs SET locked_at = now() - interval '1 day'";
  await sql(`${longAgo} WHERE id = ANY($1::bigint[])`, [dead]);

  // Its jobs, by its documented rules: taken again four hours after they were locked.
  const { rows } = await sql("SELECT * FROM graphile_worker.jobs");
  const jobs = rows.map((job) => {
    let state = job.attempts > 0 ? "retryable" : "pending";
    if (job.locked_at) state = Date.now() - job.locked_at > 4 * 3_600_000 ? "stuck" : "running";
    else if (job.attempts >= job.max_attempts) state = "exhausted";
    else if (job.run_at > new Date()) state = "backing_off";
    return { id: job.id, kind: job.task_identifier, state, error: job.last_error };
  });
  story.tell(jobs, ["completed", "skipped"]);
}

if (COMMAND === "build") await build();
else if (COMMAND === "hang")
  await run({ connectionString: URL, logger, concurrency: 5, taskList: { hang: taskList.hang } });
else {
  await runOnce({ connectionString: URL, logger, taskList });
  console.log(JSON.stringify(story.finished));
}
if (COMMAND !== "hang") await utils.release();
