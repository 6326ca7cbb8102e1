"""How time passes: loops are generators of reports and do no input or output."""
