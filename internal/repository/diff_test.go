package repository

func lineOf(c Change) string {
	mark := " "
	if c.Consequence {
		mark = "!"
	}
	return mark + " " + c.Section + ": " + c.Text + "\n"
}
