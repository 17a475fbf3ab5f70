"""What the design says it must withstand, item by item, through the programs that meet it and not only their rules."""
