"""plays.csv: 100 listeners of two tastes, three songs an evening for three weeks."""

import csv
from datetime import datetime, timedelta, timezone

import numpy as np

rng = np.random.default_rng(1)
start = datetime(2025, 2, 1, tzinfo=timezone.utc)
with open("plays.csv", "w", newline="") as stream:
    writer = csv.writer(stream)
    writer.writerow(["listener", "song", "time", "title", "artist", "listened_s", "skipped", "device"])
    for listener in range(100):
        for day in range(21):
            at = start + timedelta(days=day, hours=17 + int(rng.integers(4)), minutes=int(rng.integers(60)))
            for _ in range(3):
                song = int(rng.integers(40)) + 40 * (listener % 2)
                skipped = bool(rng.random() < 0.2)
                device = "desktop" if listener % 3 == 0 else "mobile"
                row = [f"listener {listener}", f"song {song}", at.isoformat(), f"Title {song}", f"Artist {song // 8}"]
                writer.writerow([*row, 12 if skipped else 180, int(skipped), device])
                at += timedelta(seconds=13 if skipped else 181)
