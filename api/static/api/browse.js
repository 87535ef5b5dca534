"use strict";

// An empty field is no filter: leave it out of the address, where it would be refused.
document.querySelectorAll(".filters form").forEach((form) => {
  form.addEventListener("submit", () => {
    form.querySelectorAll("[name]").forEach((field) => {
      field.disabled = field.value === "";
    });
  });
  window.addEventListener("pageshow", () => {
    form.querySelectorAll("[name]").forEach((field) => {
      field.disabled = false;
    });
  });
});
