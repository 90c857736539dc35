// Looks for news, and draws what has changed.

const EVERY = 2000, LONGEST = 15000; // milliseconds
let tag = "", failures = 0, timer = 0, newest = null, served = null;

/** One look; draws only what is not as it was. */
async function look() {
  try {
    const response = await ask("/page/state", { headers: tag ? { "If-None-Match": tag } : {} });
    if (response.status === 304) return connected(true);
    if (!response.ok) return connected(false, response.status === 401 ? "a key is needed" : await problem(response));
    show(await response.json());
    tag = response.headers.get("ETag") ?? "";
    connected(true);
  } catch {
    connected(false, "the server does not answer");
  }
}

function connected(on, why = "") {
  failures = on ? 0 : failures + 1;
  const link = byId("link"), text = on ? "live" : why;
  if (link.textContent !== text) link.textContent = text;
  link.classList.toggle("on", on);
  link.classList.toggle("off", !on);
}

function show(state) {
  const { versions, suites, skills, lessons, feedback, approve } = state;
  document.title = `${state.workspace.name}: ${state.head}`;
  byId("name").textContent = state.workspace.name;
  byId("lead").textContent = lead(state);
  byId("meta").textContent = `${state.workspace.model}; ${plural(versions.length - 1, "lesson")}, ${plural(skills.length, "skill")} registered`;
  byId("link").classList.toggle("busy", lessons.some(({ running }) => running));
  redraw("live", { lessons, skills, versions: versions.map(({ skill }) => ({ skill })) }, drawLive);
  redraw("versions", { versions }, drawVersions);
  redraw("skills", { versions, suites }, drawSkills);
  redraw("time", { versions, suites }, drawTime);
  redraw("feedback", { feedback, approve }, drawFeedback);
  const last = versions[0];
  if (newest && newest !== last.version) say(`${last.version} is recorded: ${last.status}`);
  newest = last.version;
  const offered = JSON.stringify([apiKey, versions.map(({ version, status, weights }) => [version, status, weights])]);
  if (served !== offered) offerModels();
  served = offered;
}

/** The workspace in one sentence. */
function lead({ head, versions }) {
  const learned = [...new Set(versions.filter((version) => version.in_force && version.skill).map(({ skill }) => skill))].reverse();
  if (versions.length === 1) return "The base model, as it is: nothing was taught yet.";
  const list = learned.length > 1 ? `${learned.slice(0, -1).join(", ")} and ${learned.at(-1)}` : learned[0];
  const told = list ? `${head} is in force, and has learned ${list}.` : `${head}, the base, is in force.`;
  const last = versions[0];
  return last.in_force ? told : `${told} The last lesson, ${last.version} (${last.skill}), was ${last.status === "inconclusive" ? "held: inconclusive" : last.status}.`;
}

async function watch() {
  clearTimeout(timer);
  if (!document.hidden) await look();
  clearTimeout(timer);
  timer = setTimeout(watch, Math.min(EVERY * 2 ** failures, LONGEST));
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey = byId("key").value.trim();
  byId("key-form").hidden = true;
  watch();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) watch(); });
watch();
