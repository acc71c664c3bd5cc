// Builds the bundles that the console serves, from what package-lock.json names.
//
//   cd ingester/console/vendor/build && npm ci && npm run build
//
// Writes ../preact.js, ../uplot.js, ../uplot.css, ../codemirror.js, ../LICENCES.txt and ../SHA256SUMS,
// and axe-core for the browser tests into tests/console/vendor/. The output depends on the lockfile
// alone: a second run writes the same bytes.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const out = new URL("../", import.meta.url);
const tests = new URL("../../../../tests/console/vendor/", import.meta.url);
const modules = new URL("node_modules/", import.meta.url);

const packages = new Set();
for (const name of ["preact", "uplot", "codemirror"]) {
  const result = await build({
    entryPoints: [`${name}.entry.js`],
    outfile: new URL(`${name}.js`, out).pathname,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    metafile: true,
    banner: { js: "/* Built by vendor/build; licences in LICENCES.txt. */" },
  });
  for (const path of Object.keys(result.metafile.inputs)) {
    const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
    if (found) packages.add(found[1]);
  }
}
await build({
  entryPoints: ["node_modules/uplot/dist/uPlot.min.css"],
  outfile: new URL("uplot.css", out).pathname,
  minify: true,
});

const licences = [];
for (const name of [...packages].sort()) {
  const folder = new URL(`${name}/`, modules);
  const about = JSON.parse(await readFile(new URL("package.json", folder), "utf8"));
  const file = (await readdir(folder)).find((one) => /^licen[sc]e/i.test(one));
  if (!file) throw new Error(`${name} has no licence file`);
  const text = await readFile(new URL(file, folder), "utf8");
  licences.push(`${name} ${about.version} (${about.license})\n\n${text.trim()}\n`);
}
await writeFile(new URL("LICENCES.txt", out), licences.join(`\n${"-".repeat(72)}\n\n`));

const sums = [];
for (const name of ["LICENCES.txt", "codemirror.js", "preact.js", "uplot.css", "uplot.js"]) {
  const bytes = await readFile(new URL(name, out));
  sums.push(`${createHash("sha256").update(bytes).digest("hex")}  ${name}\n`);
  console.log(`${name}: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzipped`);
}
await writeFile(new URL("SHA256SUMS", out), sums.join(""));

await mkdir(tests, { recursive: true });
await copyFile(new URL("axe-core/axe.min.js", modules), new URL("axe.min.js", tests));
await copyFile(new URL("axe-core/LICENSE", modules), new URL("axe.LICENCE.txt", tests));
