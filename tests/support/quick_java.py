"""Java for what does not run for long: it starts in half the time."""

QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # as JAVA_TOOL_OPTIONS
