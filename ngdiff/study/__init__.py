"""The comparison on equal terms: what is run, and what its rows say."""
