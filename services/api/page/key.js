// The API key of this tab, and the sheet that asks for one. Services that want none never show it. The key lies in
// sessionStorage: it ends with the tab, and no other site can read it.

const NAME = "animato-key";
const $ = (id) => document.getElementById(id);
let memory = ""; // where storage is switched off, the key lives as long as the page
let asking = null;

export function readKey() {
  try {
    return sessionStorage.getItem(NAME) ?? memory;
  } catch {
    return memory;
  }
}

export function keepKey(key) {
  memory = key;
  try {
    if (key) sessionStorage.setItem(NAME, key);
    else sessionStorage.removeItem(NAME);
  } catch {
    // storage is switched off
  }
}

/** The headers that prove who asks; none where no key was given. */
export const proof = () => (readKey() ? { Authorization: `Bearer ${readKey()}` } : {});

/**
 * Ask for a key; resolves to true when one was given, to false when the sheet was put away. Calls that are refused
 * together wait for the same sheet. `refused` is the key that `why` speaks of.
 */
export function askForKey(refused, why) {
  if (readKey() !== refused) return Promise.resolve(true); // another call has got a new one meanwhile
  keepKey("");
  $("key-problem").textContent = refused ? why : "";
  document.body.classList.add("keyed");
  asking ??= new Promise((resolve) => {
    $("key-sheet").addEventListener("close", () => resolve(Boolean(readKey())), { once: true });
    $("key-sheet").showModal();
  }).finally(() => (asking = null));
  return asking;
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey($("key").value.trim());
  $("key").value = "";
  if (readKey()) $("key-sheet").close();
});
document.body.classList.toggle("keyed", Boolean(readKey()));
