// The versions, their lineage, what the gate said of each, and what flipped.

const STEP = 22, DOT = 24; // pixels: between two lanes; from a row's top to its version
const SHOWN_FLIPS = 6;
const OUTCOMES = { improved: ["✓", "good"], kept: ["✓", "good"], regressed: ["✗", "bad"], unimproved: ["✗", "bad"] };
const KINDS = { new: "the skill it was taught", skill: "a skill from before", probe: "a probe" };
const opened = new Set();
const flipped = new Map(); // of a version: what was fetched

function drawVersions({ versions }) {
  const lanes = 1 + Math.max(...versions.flatMap(({ place }) => [place.lane, ...place.through, ...place.joins]));
  return h("ol", { class: "versions", "aria-label": "Versions, the newest first" },
    versions.map((version, row) => h("li", { class: "version" }, graph(version, lanes, row === versions.length - 1), versionRow(version))));
}

/** The part of the lineage beside one version; a line is as long as its row is high. */
function graph({ place, in_force: force }, lanes, last) {
  const at = (lane) => 18 + STEP * lane;
  const path = (d, main) => draw("path", { d, class: main ? "force" : null });
  const down = 4000; // clipped by the row
  const box = h("div", { class: "graph", "aria-hidden": "true", style: { width: `${at(lanes - 1) + 18}px`, overflow: "hidden" } });
  box.append(draw("svg", {},
    place.through.map((lane) => path(`M${at(lane)} 0V${down}`, lane === 0)),
    place.joins.map((lane) => path(lane === place.lane ? `M${at(lane)} 0V${DOT}`
      : `M${at(lane)} 0C${at(lane)} ${DOT * 0.8} ${at(place.lane)} ${DOT * 0.2} ${at(place.lane)} ${DOT}`, lane === 0)),
    !last && path(`M${at(place.lane)} ${DOT}V${down}`, force),
    draw("circle", { cx: at(place.lane), cy: DOT, r: 6, class: force ? "force" : null })));
  return box;
}

function versionRow(version) {
  const name = version.version;
  const lesson = version.skill ? `${version.skill} by ${version.label ?? "a lesson"}, from ${version.parent}` : "the untaught model";
  const details = h("details", { open: opened.has(name) },
    h("summary", { "data-key": `version ${name}` },
      h("span", { class: "what" }, h("b", {}, name), version.is_head && h("span", { class: "tag head" }, "HEAD"),
        version.status !== "base" && h("span", { class: `tag ${version.status}` }, version.status),
        h("span", {}, lesson), !version.weights && h("span", { class: "note" }, "weights removed")),
      h("span", { class: "when" }, when(version.created)),
      h("span", { class: "why" }, version.reason)),
    h("div", { class: "inside" }));
  details.addEventListener("toggle", () => {
    if (details.open) opened.add(name); else opened.delete(name);
    if (details.open) fill(details.lastChild, version);
  });
  if (details.open) fill(details.lastChild, version);
  return h("div", { class: "said" }, details);
}

function fill(box, version) {
  const { verdict, stopped } = version;
  if (!verdict) {
    box.replaceChildren(h("p", { class: "note" }, "The base: what everything is measured against. Drift is counted from here."));
    return;
  }
  const changes = h("div", { "aria-live": "polite" }, h("p", { class: "note" }, "Looking up what flipped …"));
  box.replaceChildren(
    stopped ? h("p", { class: "note" }, `The run ended itself after step ${stopped.at}: ${stopped.why}; step ${stopped.kept} was kept.`) : "",
    h("ul", { class: "checks", "aria-label": `The gate's checks of ${version.version}` }, verdict.checks.map(check)),
    changes);
  showFlips(changes, version);
}

function check({ name, kind, outcome, before, after, change, low, high, gained, lost, total }) {
  const [mark, tone] = OUTCOMES[outcome] ?? ["?", "open"];
  const limits = low === null || low === undefined ? "" : `, limits ${points(low)} and ${points(high)}`;
  return h("li", {}, h("span", { class: `mark ${tone}`, "aria-hidden": "true" }, mark),
    h("span", {}, name, sr(`: ${outcome}`), h("small", {}, `${KINDS[kind] ?? kind}; ${outcome}`),
      total !== null && total !== undefined &&
        h("small", {}, `${percent(before)} → ${percent(after)} of ${total}; ${gained} gained, ${lost} lost${limits}`)),
    h("strong", { class: tone }, change === null || change === undefined ? "" : points(change)));
}

async function showFlips(box, { version, parent }) {
  if (!flipped.has(version)) {
    const response = await ask(`/page/flips/${encodeURIComponent(version)}`).catch(() => null);
    if (!response?.ok) {
      const why = response ? await problem(response) : "the server does not answer";
      box.replaceChildren(h("p", { class: "note bad" }, `What flipped cannot be shown: ${why}`));
      return;
    }
    flipped.set(version, await response.json());
  }
  const { suites } = flipped.get(version);
  box.replaceChildren(...(suites.length ? suites.map((one) => flipList(one, parent, version))
    : [h("p", { class: "note" }, `No answer flipped: ${version} is right where ${parent} was, and only there.`)]));
}

function flipList({ suite, gained, lost, flips }, parent, version) {
  const list = h("div", {}, flips.slice(0, SHOWN_FLIPS).map((one) => flip(one, parent, version)));
  const more = flips.length > SHOWN_FLIPS && h("button", { type: "button", onclick: () => {
    const next = flips.slice(SHOWN_FLIPS).map((one) => flip(one, parent, version));
    list.append(...next);
    next[0].setAttribute("tabindex", "-1");
    next[0].focus();
    more.remove();
  } }, `Show ${flips.length - SHOWN_FLIPS} more`);
  return h("details", { class: "fold" }, h("summary", {}, `${suite}: ${gained} gained, ${lost} lost`), list, more);
}

function flip({ id, question, gained, before, after }, parent, version) {
  const given = (who, text, right) => [h("dt", {}, who), h("dd", {},
    h("span", { class: `mark ${right ? "good" : "bad"}`, "aria-hidden": "true" }, right ? "✓" : "✗"),
    h("span", {}, sr(right ? "right: " : "wrong: "), text || "(no answer)"))];
  return h("article", { class: "flip" }, h("h4", {}, question || id),
    h("dl", { class: "given" }, given(parent, before, !gained), given(version, after, gained)));
}
