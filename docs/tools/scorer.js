// How the search ranks pages, beside the words that it finds there: pages for readers before notes
// for developers, and pages whose title begins with the query first.

const PARTS = { chapters: 8, howto: 8, explanation: 2, reference: 2, repository: -12 };
const QUERY = (new URLSearchParams(location.search).get("q") ?? "").trim().toLowerCase();

function score([page, title, anchor, , found]) {
  const name = title.toLowerCase().replace(/^\d+\. /, ""); // of a chapter, without its number
  const isNamed = QUERY && !anchor && name.startsWith(QUERY);
  return found + (PARTS[page.split("/")[0]] ?? 0) + (isNamed ? 20 : 0);
}

globalThis.Scorer = {
  score,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
