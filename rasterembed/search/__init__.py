"""Search of embedded datasets: what is asked, where it is looked for, who answers, and how the answer is shown."""
