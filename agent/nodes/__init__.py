"""A site's GPU hosts as its agent sees them: who they are, what they report, what they may draw."""
