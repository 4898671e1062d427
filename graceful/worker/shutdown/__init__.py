"""The shutdown of one worker: who is told of it, who decides, and what guards its end."""
