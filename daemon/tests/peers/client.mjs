// The official TypeScript client, driven from outside: node client.mjs legacy|modern URL TOKEN < steps.json
// legacy = the v1 SDK and its sessions; modern = the v2 SDK, held to 2026-07-28.
// Steps: {"list": true} | {"call": tool, "arguments": {…}, "progress": true} | {"read": uri} | {"ping": true}
// Prints one JSON line for each step: {"tools": […]} | {"result": …, "progress": […]} | {"error": {"code", "message"}}
import { createRequire } from "node:module";
import { join } from "node:path";
import { text } from "node:stream/consumers";

const require = createRequire(join(process.env.PEERS_NODE, "package.json"));
const [era, url, token] = process.argv.slice(2);
const modern = era === "modern";
const { Client } = require(modern ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require(
  modern ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk/client/streamableHttp.js",
);

const steps = JSON.parse(await text(process.stdin));
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const failure = (error) => ({ error: { code: error.code ?? null, message: String(error.message ?? error) } });

const options = modern ? { versionNegotiation: { mode: { pin: "2026-07-28" } } } : {};
const client = new Client({ name: "tollgate-test", version: "1" }, options);
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
try {
  await client.connect(transport);
} catch (error) {
  say(failure(error));
  process.exit(0);
}
for (const step of steps) {
  try {
    if (step.list) {
      const tools = [];
      let cursor;
      do {
        const page = await client.listTools(cursor === undefined ? {} : { cursor });
        tools.push(...page.tools.map((tool) => tool.name));
        cursor = page.nextCursor;
      } while (cursor !== undefined);
      say({ tools });
    } else if (step.read) {
      say({ result: await client.readResource({ uri: step.read }) });
    } else if (step.ping) {
      say({ result: await client.ping() });
    } else {
      const progress = [];
      const options = step.progress ? { onprogress: (p) => progress.push(p.progress) } : {};
      const call = { name: step.call, arguments: step.arguments ?? {} };
      const result = modern ? await client.callTool(call, options) : await client.callTool(call, undefined, options);
      say({ result, progress });
    }
  } catch (error) {
    say(failure(error));
  }
}
if (!modern) await transport.terminateSession().catch(() => {});
await client.close();
