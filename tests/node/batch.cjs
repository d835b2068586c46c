// The official Node client, @azure/batch 10.2, unmodified, against a whole stack.
// Arguments: URL, account, key. Prints JSON of what it saw.

const { BatchServiceClient, BatchSharedKeyCredentials } = require("@azure/batch");
const assert = require("node:assert");

const [url, account, key] = process.argv.slice(2);
const TASKS = 130;
const PATIENCE_MS = 120_000;
const client = new BatchServiceClient(new BatchSharedKeyCredentials(account, key), url);

async function until(what, look) {
  const end = Date.now() + PATIENCE_MS;
  while (Date.now() < end) {
    const found = await look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${what} did not come`);
}

async function refused(code, call) {
  await assert.rejects(call, (error) => {
    assert.strictEqual(error.body && error.body.code, code, String(error));
    return true;
  });
}

async function text(download) {
  const chunks = [];
  for await (const chunk of download.readableStreamBody) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

// All pages of a list.
async function all(first, next) {
  const items = [];
  let pages = 1;
  let page = await first;
  items.push(...page);
  while (page.odatanextLink) {
    page = await next(page.odatanextLink);
    items.push(...page);
    pages += 1;
  }
  return { items, pages };
}

async function main() {
  const imageReference = { publisher: "canonical", offer: "ubuntu", sku: "22_04-lts" };
  const virtualMachineConfiguration = { imageReference, nodeAgentSKUId: "batch.node.ubuntu 22.04" };
  await client.pool.add({ id: "node", vmSize: "small", virtualMachineConfiguration, targetDedicatedNodes: 1, taskSlotsPerNode: 4 });
  assert.strictEqual((await client.pool.exists("node")).body, true);
  assert.strictEqual((await client.pool.exists("nothing")).body, false);
  await until("a node", async () => (await client.computeNode.list("node")).some((node) => node.state === "idle"));

  await client.job.add({ id: "job", poolInfo: { poolId: "node" }, priority: 3, constraints: { maxTaskRetryCount: 0 } });
  await client.job.patch("job", { priority: 4 });
  assert.strictEqual((await client.job.get("job")).priority, 4);
  const tasks = Array.from({ length: TASKS }, (_, n) => ({
    id: `t${String(n).padStart(3, "0")}`,
    commandLine: `/bin/sh -c 'echo ${n}; exit ${n === 5 ? 1 : 0}'`,
  }));
  const added = [];
  for (let at = 0; at < TASKS; at += 100) {
    added.push(...(await client.task.addCollection("job", tasks.slice(at, at + 100))).value);
  }
  assert.ok(added.length === TASKS && added.every((result) => result.status.toLowerCase() === "success"));
  const counts = await until("the end of all tasks", async () => {
    const { taskCounts } = await client.job.getTaskCounts("job");
    return taskCounts.completed === TASKS && taskCounts;
  });
  const { items, pages } = await all(
    client.task.list("job", { taskListOptions: { maxResults: 50, select: "id,state" } }),
    (link) => client.task.listNext(link),
  );
  assert.deepStrictEqual(items.map((task) => task.id), tasks.map((task) => task.id));
  const failed = await client.task.list("job", { taskListOptions: { filter: "executionInfo/result eq 'failure'" } });
  assert.deepStrictEqual(failed.map((task) => [task.id, task.executionInfo.exitCode]), [["t005", 1]]);
  const stdout = await text(await client.file.getFromTask("job", "t007", "stdout.txt"));
  const part = await text(await client.file.getFromTask("job", "t123", "stdout.txt", { fileGetFromTaskOptions: { ocpRange: "bytes=0-1" } }));
  const names = (await client.file.listFromTask("job", "t007", { recursive: true })).map((file) => file.name);
  assert.ok(names.includes("stdout.txt") && names.includes("stderr.txt"), String(names));

  await refused("TaskNotFound", () => client.task.get("job", "none"));
  await refused("JobExists", () => client.job.add({ id: "JOB", poolInfo: { poolId: "node" } }));
  await refused("InvalidQueryParameterValue", () => client.job.list({ jobListOptions: { filter: "colour eq 'red'" } }));

  const schedule = { doNotRunUntil: new Date("2100-01-01T00:00:00Z") };
  await client.jobSchedule.add({ id: "later", schedule, jobSpecification: { poolInfo: { poolId: "node" } } });
  assert.strictEqual((await client.jobSchedule.get("later")).state, "active");
  await client.jobSchedule.deleteMethod("later");
  await client.pool.enableAutoScale("node", { autoScaleFormula: "$TargetDedicatedNodes = 1;" });
  const evaluated = await client.pool.evaluateAutoScale("node", "$TargetDedicatedNodes = 2;");
  assert.ok(evaluated.results.includes("$TargetDedicatedNodes=2"), evaluated.results);
  await client.pool.disableAutoScale("node");
  const nodes = (await client.account.listPoolNodeCounts()).map((pool) => pool.dedicated.total);
  await client.job.deleteMethod("job");
  await client.pool.deleteMethod("node");
  await until("the pool's end", async () => !(await client.pool.exists("node")).body);
  console.log(JSON.stringify({ counts: { succeeded: counts.succeeded, failed: counts.failed }, stdout, part, pages, nodes }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
