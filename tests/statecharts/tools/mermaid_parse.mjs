// Reads a Mermaid state diagram, lets mermaid.parse judge it, and prints the states and arrows Mermaid understood.
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

globalThis.window = new JSDOM("").window;
globalThis.document = globalThis.window.document;
const { default: mermaid } = await import("mermaid");

const text = readFileSync(0, "utf8");
await mermaid.parse(text);
const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
const arrows = db.getRelations().map(({ id1, id2, relationTitle }) => [id1, id2, relationTitle]);
console.log(JSON.stringify({ states: [...db.getStates().keys()], arrows }));
