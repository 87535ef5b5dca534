"use strict";

// An empty field is no filter. It is left out of the URL, because the API refuses empty parameters.
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
