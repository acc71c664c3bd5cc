// Commands ready to be pasted: one request for each door.

/** A word for the shell. */
export const quoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

const json = (value) => JSON.stringify(value, null, 2).replaceAll("'", "\\u0027");

export function curl(url, { headers = {}, body, method = "POST" }) {
  const lines = [`curl -X ${method} ${quoted(url)}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body !== undefined) lines.push(`--data-binary ${quoted(body)}`);
  return lines.join(" \\\n  ");
}

const bearer = (key) => ({ Authorization: `Bearer ${key}`, "Content-Type": "application/json" });

export function logCurl(url, token) {
  const event = {
    message: "Payment succeeded",
    amount: 2000,
    currency: "USD",
    customer_id: "cus_111",
    metadata: { source: "stripe" },
    level: "info",
  };
  return curl(url, { headers: bearer(token), body: json(event) });
}

export function metricCurl(url, key, projectId) {
  const metric = { metricId: "daily_signups", metricName: "Daily Signups", value: 42, unit: "count" };
  return curl(url, { headers: bearer(key), body: json({ projectId, metrics: [metric] }) });
}

// One time for the whole page: a command that is shown does not change under the cursor.
const loadedAt = Date.now();

export function sampleEvent() {
  return JSON.stringify({
    accountId: "acme", userId: "ada", createdAt: loadedAt, action: "login", sessionId: "s1",
  });
}

export const eventCurl = (url) => curl(url, { body: sampleEvent() });

export function gzipCurl(url) {
  return `printf '%s\\n' ${quoted(sampleEvent())} | gzip | curl -X POST ${quoted(url)} \\
  -H 'Content-Encoding: gzip' --data-binary @-`;
}

export function honestCurl(intakeUrl, token, label = "web") {
  const lines = `{"message": "one", "level": "warn"}\n{"message": "two", "n": 2}`;
  const headers = { Authorization: `Bearer ${token}` };
  return curl(`${intakeUrl}/ingest/${label}`, { headers, body: lines });
}
