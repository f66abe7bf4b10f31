# The front door: every target is one command of `cargo xtask`, where the work is done.

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench up down

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "All commands: cargo xtask --help"

demo: ## Watch a real three-master cluster lose masters, without Trivet and with it (root)
	cargo xtask demo

test: ## Run all checks and tests, those on the real cluster too (root; installs what is missing)
	cargo xtask test

soak: ## Run what takes too long for every day: long outages, thousands of seeds, a day of churn (root)
	cargo xtask soak

bench: ## Measure the proxy beside its peers, and the operator at 5,000 nodes; writes pages in docs (root; a quarter of an hour)
	cargo xtask bench

up: ## Start the cluster of the demo and the tests, or repair it (root)
	cargo xtask testbed up

down: ## Stop that cluster and leave nothing behind (root)
	cargo xtask testbed down
