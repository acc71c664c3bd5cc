// The levels of logs, the least severe first, and their colours.

export const LEVELS = [
  "trace", "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency",
];

export const levelColour = (name) => (LEVELS.includes(name) ? `--level-${name}` : "--muted");
