"""Who may reach the app: this machine, or whoever knows the token; by names that are ours; from pages that are ours."""
