"""visits.py FROM TO: visits to the service on port 8037, each with feedback: own taste is heard out more often."""

import json
import sys
import urllib.request

import numpy as np


def post(path, body):
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:8037{path}", json.dumps(body).encode(), headers)
    ) as answer:
        return json.load(answer)


for visit in range(int(sys.argv[1]), int(sys.argv[2])):
    rng = np.random.default_rng(visit)
    listener = int(rng.integers(100))
    page = post("/v1/home", {"user_id": f"listener {listener}", "device": "mobile", "tz": "Europe/Stockholm"})
    events = [{"event_id": "shown", "displayed": True}]
    for row, shelf in enumerate(page["shelves"]):
        for column, card in enumerate(shelf["cards"]):
            if rng.random() < 0.8:
                own = int(card["item_id"].split()[1]) // 40 == listener % 2
                heard = 45.0 if rng.random() < (0.3 if own else 0.05) else 0.0
                events.append(
                    {"event_id": f"{row},{column}", "row": row, "column": column, "seen": True, "listened_s": heard}
                )
    post("/v1/feedback", {"request_id": page["request_id"], "events": events})
