"use strict";

// Redoc shows its maker's logo, which it would fetch from elsewhere. The page's policy forbids that; here it is not even asked for.
const isOurs = (address) => !String(address).startsWith("https://");
const setAttribute = Element.prototype.setAttribute;
HTMLImageElement.prototype.setAttribute = function (name, value) {
  if (name !== "src" || isOurs(value)) {
    setAttribute.call(this, name, value);
  }
};
const source = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
Object.defineProperty(HTMLImageElement.prototype, "src", {
  ...source,
  set(value) {
    if (isOurs(value)) {
      source.set.call(this, value);
    }
  },
});
