"""What a run leaves behind, the same for both worlds: journal, summary, curve, and what a person sees."""
