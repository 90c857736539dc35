// What users said of answers and nobody has looked at yet: approved or rejected, one by one.

const SAID = { up: "thumb up", down: "thumb down", correction: "the right answer", text: "a remark", follow_up: "what was said next" };
let undone = null;

function drawFeedback({ feedback, approve }) {
  const badge = byId("feedback-count");
  badge.hidden = !feedback?.pending;
  badge.replaceChildren(String(feedback?.pending ?? ""), sr(" waiting"));
  if (!feedback) {
    return empty("No conversation was kept yet.", "A server keeps them for those who agree: ", code("selftaught serve --store"),
      ". What people say of its answers then waits here.");
  }
  if (!feedback.pending) return empty("Nothing waits for you.", "What was approved is taught by ", code("selftaught learn --interactions"), ".");
  return [
    h("p", { class: "note" }, approve === "by_hand" ? "Only what you approve is learned from." : "A lesson learns from all of this that you do not reject."),
    feedback.shown.map(feedbackCard),
    feedback.pending > feedback.shown.length && h("p", { class: "note" }, `and ${feedback.pending - feedback.shown.length} more, once these are decided`),
  ];
}

function feedbackCard(said) {
  const question = said.messages.at(-1)?.content ?? "", earlier = said.messages.slice(0, -1);
  const short = question.length > 80 ? `${question.slice(0, 80)}…` : question;
  const button = (state, word, main) => h("button", { type: "button", class: main ? "main" : null, "data-key": `${state} ${said.id}`,
    "aria-label": `${word} ${SAID[said.kind] ?? said.kind} to “${short}”`, onclick: () => decide(said, state, word) }, word);
  return h("article", { class: "card feedback", "data-feedback": said.id }, h("h3", {}, question),
    earlier.length > 0 && h("details", { class: "earlier" }, h("summary", {}, plural(earlier.length, "earlier turn")),
      h("dl", {}, earlier.map(({ role, content }) => [h("dt", {}, role), h("dd", {}, content)]))),
    h("dl", {}, h("dt", {}, `${said.version} said`), h("dd", {}, said.completion || "(nothing)"),
      h("dt", {}, `${said.key}: `, h("span", { class: "kind" }, SAID[said.kind] ?? said.kind)),
      h("dd", {}, said.text || (said.kind === "up" ? "👍" : said.kind === "down" ? "👎" : ""))),
    h("div", { class: "buttons" }, button("approved", "Approve", true), button("rejected", "Reject", false)));
}

async function decide(said, state, word) {
  const card = document.querySelector(`[data-feedback="${said.id}"]`);
  for (const one of card.querySelectorAll("button")) one.disabled = true;
  const next = card.nextElementSibling?.querySelector("button") ?? card.previousElementSibling?.querySelector("button");
  const key = next?.dataset.key.replace(/^\w+/, state);
  const failure = await setState(said.id, state);
  byId("decided").hidden = false;
  byId("undo").hidden = failure !== null;
  byId("decided-text").textContent = failure ?? (state === "approved" ? "Approved." : "Rejected.");
  undone = said.id;
  if (failure !== null) for (const one of card.querySelectorAll("button")) one.disabled = false;
  await look();
  const target = failure === null && key ? document.querySelector(`[data-key="${CSS.escape(key)}"]`) : null;
  if (failure === null) (target ?? byId("undo")).focus();
  else card.querySelector("button")?.focus();
}

async function setState(id, state) {
  const response = await ask(`/page/feedback/${id}`, { method: "POST", body: JSON.stringify({ state }), headers: { "Content-Type": "application/json" } })
    .catch(() => null);
  if (response?.ok) return null;
  return `That did not work: ${response ? await problem(response) : "the server does not answer"}`;
}

byId("undo").addEventListener("click", async () => {
  const failure = await setState(undone, "pending");
  byId("decided-text").textContent = failure ?? "Taken back.";
  byId("undo").hidden = true;
  await look();
  (document.querySelector(`[data-key="approved ${undone}"]`) ?? byId("feedback-title")).focus();
});
