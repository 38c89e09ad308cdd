"""What is declared, seen as a whole: who reads which column, what a change breaks, pages to look it up."""
