// Light, dark, or the browser's setting. Only this is kept beyond the tab.
import { state, update } from "./state.js";

const KEY = "notifier.theme";
export const THEMES = ["auto", "light", "dark"];

export function setTheme(theme) {
  if (theme === "auto") {
    localStorage.removeItem(KEY);
    document.documentElement.removeAttribute("data-theme");
  } else {
    localStorage.setItem(KEY, theme);
    document.documentElement.dataset.theme = theme;
  }
  update({ theme });
}

export const readTheme = () => (THEMES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : state.theme);
