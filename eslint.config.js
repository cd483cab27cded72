import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["**/uplot.js", "**/preact.js", "node_modules/", ".venv*/"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2024, sourceType: "module" },
    rules: {
      eqeqeq: ["error", "always", { null: "ignore" }],
      "max-len": ["error", { code: 120 }],
      "no-control-regex": "off",
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  { files: ["src/**/*.js"], languageOptions: { globals: globals.browser } },
  {
    files: ["docs/**/*.js"],
    languageOptions: { sourceType: "script", globals: globals.browser },
    rules: { "no-unused-vars": "off" }, // pages call these functions
  },
  { files: ["tests/**/*.js"], languageOptions: { globals: globals.node } },
];
