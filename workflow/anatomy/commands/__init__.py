"""What the commands of `anatomy` do; `anatomy.cli` only names them and their options."""
