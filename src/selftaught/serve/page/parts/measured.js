// What was measured: every skill in every version, probes and drift over time, and the lesson under way.

function drawSkills({ versions, suites }) {
  const shown = suites.filter(({ cells }) => cells.some(Boolean));
  if (!shown.length) return empty("Nothing was measured yet.", "The first lesson asks HEAD everything, before and after: ", code("selftaught learn SKILL"));
  const columns = [...versions].reverse();
  const group = (title, rows) => rows.length ? h("tbody", {},
    h("tr", { class: "part" }, h("th", { scope: "rowgroup", colspan: columns.length + 1 }, h("span", {}, title))), rows) : null;
  const row = ({ suite, cells }) => h("tr", {}, h("th", { scope: "row" }, suite), cells.map((cell, n) => heat(cell, columns[n])));
  const probes = shown.filter(({ kind }) => kind === "probe");
  const drift = h("tr", {}, h("th", { scope: "row" }, "drift", h("small", { class: "note" }, "nats a token")), columns.map((version) =>
    h("td", { class: `plain${version.in_force ? "" : " aside"}` }, version.drift_nats === null ? "–" : number(version.drift_nats))));
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Accuracy of every version in every skill", "data-key": "matrix" },
    h("table", { class: "matrix" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, sr("Skill or probe")), columns.map((version) =>
        h("th", { scope: "col", class: version.in_force ? null : "aside" }, version.version,
          h("small", {}, version.is_head ? "HEAD" : version.in_force ? "" : version.status))))),
      group("Skills", shown.filter(({ kind }) => kind === "skill").map(row)),
      group("Probes: never taught", probes.map(row)),
      columns.some((version) => version.drift_nats !== null) && group("Distance from the base", [drift])));
  requestAnimationFrame(() => { scroll.scrollLeft = scroll.scrollWidth; }); // the newest are what one looks for
  return [h("div", { class: "card flush" }, scroll),
    h("p", { class: "note" }, "The share of questions answered right. A frame marks the version that was taught the skill; pale columns are not in force.")];
}

function heat(cell, version) {
  const aside = version.in_force ? "" : " aside";
  if (!cell) return h("td", { class: `none${aside}` }, "–", sr(" not asked"));
  return h("td", { class: `${cell.taught ? "taught" : ""}${aside}`, style: { "--heat": (0.62 * cell.value).toFixed(3) },
    title: `${cell.correct} of ${cell.total}; 95%: ${percent(cell.low)} to ${percent(cell.high)}` },
  percent(cell.value), cell.taught && sr(" (just taught)"), h("small", {}, `${cell.correct}/${cell.total}`));
}

function drawTime({ versions, suites }) {
  const columns = [...versions].reverse();
  const xs = columns.map((_, place) => place), names = columns.map(({ version }) => version);
  const lone = columns.map((version) => !version.in_force);
  const probes = suites.filter(({ kind, cells }) => kind === "probe" && cells.filter(Boolean).length > 1)
    .map(({ suite, cells }, n) => ({ label: suite, tint: tint(n), lone, values: cells.map((cell) => cell && cell.value) }));
  const drift = { label: "drift", tint: tint(0), lone, values: columns.map((version) => version.drift_nats) };
  const drifts = drift.values.filter((value) => value !== null).length > 1;
  if (!probes.length && !drifts) {
    return empty("There is nothing to compare yet.", "Two versions that answered the same probes are needed; the gate asks them in each lesson unless ",
      code('probes = "none"'), " stands in ", code("selftaught.toml"), ".");
  }
  const told = (one) => `${one.label}: ${names.map((name, n) => one.values[n] === null ? null : `${name} ${percent(one.values[n])}`).filter(Boolean).join(", ")}`;
  return [h("div", { class: "pair" },
    probes.length > 0 && h("figure", { class: "card" }, h("figcaption", {}, "Probes ", h("small", {}, "share right; never taught")),
      chart({ label: `Probes by version. ${probes.map(told).join("; ")}`, xs, names, series: probes, format: percent }), legend(probes)),
    drifts && h("figure", { class: "card" }, h("figcaption", {}, "Drift ", h("small", {}, "nats a token away from the base")),
      chart({ label: `Drift by version. ${names.map((name, n) => `${name} ${drift.values[n] === null ? "not measured" : number(drift.values[n])}`).join(", ")}`,
        xs, names, series: [drift], floor: 0 }))),
  h("p", { class: "note" }, "Lines join what is in force; hollow points were not promoted, or rolled back. The axis of the probes does not begin at zero.")];
}

function drawLive({ lessons, skills, versions }) {
  if (!lessons.length) {
    const taught = new Set(versions.map(({ skill }) => skill)), next = skills.find((skill) => !taught.has(skill)) ?? skills[0];
    return empty("No lesson is running.", ...(next ? ["Teach one: ", code(`selftaught learn ${next}`)]
      : ["Register a skill, ", code("selftaught skills add NAME DATA"), ", then teach it: ", code("selftaught learn NAME")]));
  }
  return lessons.map((lesson) => lesson.running ? running(lesson) : interrupted(lesson));
}

function interrupted({ skill, head, step, steps }) {
  return empty(`A lesson was interrupted: ${skill}, taught to ${head}${step ? `, at step ${step} of ${steps}` : ""}.`,
    "Asked for again with the same settings, it goes on by itself: ", code(`selftaught learn ${skill}`));
}

function running(lesson) {
  const { skill, head, label, stage, what, step, steps, seconds_left: left, samples } = lesson;
  const training = stage === "training" && step;
  const doing = training ? `step ${step} of ${steps}, about ${clock(left)} left` : `${stage}${what ? ` (${what})` : ""}`;
  const xs = lesson.points.map((point) => point.step);
  const loss = [{ label: "loss", tint: tint(0), values: lesson.points.map((point) => point.loss) }];
  const gaps = [["gap to what is taught", "gap_nats", 1], ["from the base (anchor)", "anchor_nats", 2]]
    .map(([name, key, n]) => ({ label: name, tint: tint(n), values: lesson.points.map((point) => point[key]) }))
    .filter(({ values }) => values.some((value) => value !== null && value !== undefined));
  const now = (values) => { const known = values.filter((value) => value !== null); return known.length ? number(known.at(-1)) : "not known"; };
  return h("article", { class: "card lesson" }, h("h3", {}, `${head} is being taught ${skill} by ${label}`),
    h("progress", { max: "1", value: String(steps ? (step ?? 0) / steps : 0), "aria-label": "Steps done" }),
    h("p", { class: "note" }, doing),
    xs.length > 1 && h("div", { class: "pair" },
      h("figure", {}, h("figcaption", {}, "Loss ", h("small", {}, "by step")), chart({ label: `Loss over ${xs.length} steps, now ${now(loss[0].values)}`, xs, series: loss })),
      gaps.length > 0 && h("figure", {}, h("figcaption", {}, "Distance ", h("small", {}, "nats a token, by step")),
        chart({ label: gaps.map((one) => `${one.label}: now ${now(one.values)}`).join("; "), xs, series: gaps, floor: 0 }), legend(gaps))),
    samples.length > 0 && sampled(samples));
}

function sampled(samples) {
  const quote = ({ step, text }) => [h("small", { class: "note" }, `step ${step}`), h("blockquote", {}, text || "(nothing)")];
  const [latest, ...earlier] = [...samples].reverse();
  const key = "samples";
  const fold = h("details", { class: "fold", open: opened.has(key), ontoggle: () => fold.open ? opened.add(key) : opened.delete(key) },
    h("summary", { "data-key": key }, `${plural(earlier.length, "earlier answer")}`), h("ol", {}, earlier.map((one) => h("li", {}, ...quote(one)))));
  return h("div", { class: "samples" }, h("h3", {}, `Its present answer to ${latest.id}`), ...quote(latest), earlier.length > 0 && fold);
}
