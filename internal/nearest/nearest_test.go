package nearest

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"namespace", "credentials", "kind", "pod", "cpu"}
	for typo, want := range map[string]string{"namspace": "namespace", "Kind": "kind", "creds": "", "credential": "credentials", "zzz": "", "pods": "pod", "x": ""} {
		if got := Word(typo, known); got != want {
			t.Errorf("Word(%q) = %q, want %q", typo, got, want)
		}
	}
}
