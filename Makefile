.PHONY: lock
lock: ## pin requirements*.in again, with hashes
	.venv/bin/uv pip compile requirements.in     --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet --output-file requirements.txt
	.venv/bin/uv pip compile requirements-dev.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet --output-file requirements-dev.txt
