"""The command line: `ngdiff …`, each command with its options."""
