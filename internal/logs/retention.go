package logs

func (s *Store) removed(task string, attempt int) string { return "" }
