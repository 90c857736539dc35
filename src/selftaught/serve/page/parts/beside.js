// Two versions answer the same prompt, as they speak.

const MAX_TOKENS = 256;
let stopper = null;

/** Offers the versions that the server answers for. */
async function offerModels() {
  const note = byId("beside-note"), form = byId("beside");
  const response = await ask("/v1/models").catch(() => null);
  const served = response?.ok ? (await response.json()).data.map((model) => model.id) : [];
  form.hidden = !served.length;
  note.hidden = served.length > 0;
  if (!served.length) {
    note.replaceChildren(response?.status === 401 ? "Give a key above to ask." : "This page was started without the server that answers. ",
      ...(response?.status === 401 ? [] : ["Start it with ", code("selftaught serve"), " and look at its own page."]));
    return;
  }
  const [first, second] = [byId("first"), byId("second")];
  const chosen = [first.value || "HEAD", second.value || (served.includes("v0") ? "v0" : served.at(-1))];
  [first, second].forEach((select, n) => {
    select.replaceChildren(...served.map((name) => h("option", { value: name }, name)));
    select.value = served.includes(chosen[n]) ? chosen[n] : served[0];
  });
}

async function askBoth(event) {
  event.preventDefault();
  const prompt = byId("prompt").value.trim();
  if (!prompt) return;
  stopper?.abort();
  const mine = stopper = new AbortController();
  byId("stop").disabled = false;
  const cards = [byId("first").value, byId("second").value].map(answerCard);
  byId("answers").replaceChildren(...cards.map(({ card }) => card));
  await Promise.all(cards.map((one) => stream(one, prompt, mine.signal)));
  if (stopper === mine) byId("stop").disabled = true;
}

function answerCard(model) {
  const text = h("p", { class: "text", "aria-live": "polite", "aria-busy": "true" }, "…"), note = h("small", {}, "");
  return { model, text, note, card: h("article", { class: "card answer", "data-model": model }, h("h3", {}, model, note), text) };
}

async function stream({ model, text, note }, prompt, signal) {
  const began = performance.now();
  let said = "";
  try {
    const body = { model, messages: [{ role: "user", content: prompt }], stream: true, temperature: 0, max_tokens: MAX_TOKENS };
    const response = await ask("/v1/chat/completions", { method: "POST", signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
    if (!response.ok) throw new Error(await problem(response));
    for await (const part of eventsOf(response)) {
      if (part.error) throw new Error(part.error.message);
      said += part.choices?.[0]?.delta?.content ?? "";
      text.textContent = said || "…";
    }
    text.textContent = said || "(no answer)";
    note.textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
  } catch (error) {
    note.textContent = error.name === "AbortError" ? "stopped" : "failed";
    if (error.name !== "AbortError") text.append(h("span", { class: "bad" }, ` ${error.message}`));
  }
  text.setAttribute("aria-busy", "false");
}

/** The events of a stream, as objects. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines.map((one) => one.trim())) {
      if (line.startsWith("data:") && line !== "data: [DONE]") yield JSON.parse(line.slice(5));
    }
    if (done) return;
  }
}

byId("beside").addEventListener("submit", askBoth);
byId("stop").addEventListener("click", () => stopper?.abort());
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("beside").requestSubmit();
});
