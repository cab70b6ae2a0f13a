package let

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
)

// redacted stands for a secret in a log.
const redacted = "***"

// minSecret is how long a secret has to be to be found in output: a shorter one
// would be found everywhere.
const minSecret = 4

// secrets are values that don't belong into a log, in each form that they
// appear in there, the longest first.
type secrets [][]byte

// add takes a value: as it is, as JSON has it, and each of its lines.
func (s *secrets) add(value string) {
	forms := strings.Split(value, "\n")
	forms = append(forms, value)
	if text, err := json.Marshal(value); err == nil {
		forms = append(forms, string(text[1:len(text)-1]))
	}
	for _, form := range forms {
		form = strings.TrimRight(form, "\r\n")
		known := slices.ContainsFunc(*s, func(b []byte) bool { return string(b) == form })
		if len(form) >= minSecret && !known {
			*s = append(*s, []byte(form))
		}
	}
	slices.SortStableFunc(*s, func(a, b []byte) int { return len(b) - len(a) })
}

// remove returns data without the secrets.
func (s secrets) remove(data []byte) []byte {
	for _, secret := range s {
		data = bytes.ReplaceAll(data, secret, []byte(redacted))
	}
	return data
}

// begun is how many of the last bytes may be the beginning of a secret.
func (s secrets) begun(data []byte) int {
	most := 0
	for _, secret := range s {
		for n := min(len(secret)-1, len(data)); n > most; n-- {
			if bytes.HasPrefix(secret, data[len(data)-n:]) {
				most = n
			}
		}
	}
	return most
}

// redactor writes a stream without the secrets. What may be the beginning of
// one is held back until more comes, or until Close.
type redactor struct {
	to      io.Writer
	secrets secrets
	held    []byte
}

func (r *redactor) Write(p []byte) (int, error) {
	if len(r.secrets) == 0 {
		return r.to.Write(p)
	}
	data := r.secrets.remove(append(r.held, p...))
	n := len(data) - r.secrets.begun(data)
	_, err := r.to.Write(data[:n])
	r.held = append([]byte(nil), data[n:]...)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes what is held back.
func (r *redactor) Close() error {
	_, err := r.to.Write(r.held)
	r.held = nil
	return err
}
