"""What is written from the records: the experiments' page, the methods' table, pictures."""
