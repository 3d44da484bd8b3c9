"""A client of another language, generated from the OpenAPI document, compiled strictly and run against a served run.

    python -m benchmarks generated_client [RUN]       needs node and npm, and the npm registry once

openapi-typescript writes types from /openapi.json, openapi-fetch calls by them; `tsc --strict` must take a client that
uses answers, and must refuse one that sends a field of the wrong type. Exits with 1 where either fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.served.server import serving, small_run

PACKAGES = ["openapi-typescript@7.4.4", "openapi-fetch@0.13.3", "typescript@5.7.2"]
CLIENT = """
import createClient from "openapi-fetch";
import type { paths } from "./api";
const client = createClient<paths>({ baseUrl: process.argv[2], headers: { "X-API-Key": process.argv[3] } });
async function main() {
  const page = await client.POST("/v1/home", { body: { user_id: "u000001", device: "mobile" } });
  if (!page.data) throw new Error(JSON.stringify(page.error));
  const id: string | null = page.data.request_id;
  const cards: number = page.data.shelves.reduce((sum, shelf) => sum + shelf.cards.length, 0);
  const told = await client.POST("/v1/feedback", { body: { request_id: id!, events: [
    { event_id: "1", row: 0, column: 0, seen: true, listened_s: 41.5 } ] } });
  const why = await client.GET("/v1/decisions/{request_id}/why", {
    params: { path: { request_id: id! }, query: { row: 0, column: 0 } } });
  const switched = await client.POST("/v1/control", { body: { switch: "explore", state: "on" } });
  const missing = await client.GET("/v1/listeners/{user_id}", { params: { path: { user_id: "nobody" } } });
  const problem: string | undefined = missing.error?.title;
  console.log(JSON.stringify({ cards, accepted: told.data?.accepted, item: why.data?.item_id,
    workers: switched.data?.workers.took_up, status: missing.response.status, problem }));
}
main();
"""
WRONG = """
import createClient from "openapi-fetch";
import type { paths } from "./api";
createClient<paths>({}).POST("/v1/home", { body: { user_id: 7 } });
"""
OPTIONS = {"strict": True, "module": "commonjs", "target": "es2022", "moduleResolution": "node10", "types": []}
TSCONFIG = {"compilerOptions": {**OPTIONS, "esModuleInterop": True, "skipLibCheck": True, "lib": ["es2022", "dom"]}}


def main(given: str | None) -> int:
    """Exit code 1 where the client does not compile or is answered otherwise."""
    with tempfile.TemporaryDirectory(prefix="bart-client-") as place:
        folder, run = Path(place), Path(given) if given else Path(place) / "run"
        if given is None:
            small_run(run)
        said = {"dependencies": {}, "private": True}
        (folder / "package.json").write_text(json.dumps(said))
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES], cwd=folder, check=True)
        (folder / "client.ts").write_text("declare const process: any;\n" + CLIENT)
        (folder / "wrong.ts").write_text(WRONG)
        (folder / "tsconfig.json").write_text(json.dumps(TSCONFIG))
        with serving(run, 1) as (_, port):
            address = f"http://127.0.0.1:{port}"
            # By default the generator asks for every field that has a default.
            generate = ["npx", "openapi-typescript", f"{address}/openapi.json", "--default-non-nullable", "false"]
            subprocess.run([*generate, "-o", "api.ts"], cwd=folder, check=True)
            made = subprocess.run(["npx", "tsc"], cwd=folder, capture_output=True, text=True, check=False)
            errors = [line for line in made.stdout.splitlines() if "error TS" in line]
            key = (run / "admin.key").read_text().strip()
            told = subprocess.run(
                ["node", "client.js", address, key], cwd=folder, capture_output=True, text=True, check=False
            )
    refused = [line for line in errors if line.startswith("wrong.ts")]
    compiles = not [line for line in errors if not line.startswith("wrong.ts")]
    print("\n".join([*errors, told.stdout.strip(), told.stderr.strip()]))
    answer = json.loads(told.stdout or "{}")
    right = answer.get("accepted") == 1 and answer.get("workers") == 1 and answer.get("status") == 404
    print(json.dumps({"compiles": compiles, "wrong_type_refused": bool(refused), "answered": right}))
    return 0 if compiles and refused and right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
