package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLocate(t *testing.T) {
	project, home := t.TempDir(), t.TempDir()
	t.Chdir(project)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
	t.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
	t.Setenv("BERTH_INFRA", "")
	t.Setenv("BERTH_DATA", "")
	own, here := filepath.Join(home, "config", "berth", "infra.yml"), filepath.Join(project, "infra.yml")
	expect := func(flag, want string) {
		t.Helper()
		if got, err := Locate(flag); err != nil || got != want {
			t.Errorf("Locate(%q) = %q, %v; want %q", flag, got, err, want)
		}
	}
	expect("", here) // neither exists
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("", own)
	if err := os.WriteFile(here, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("", here)
	t.Setenv("BERTH_INFRA", "sub/env.yml")
	expect("", filepath.Join(project, "sub/env.yml"))
	expect("flag.yml", filepath.Join(project, "flag.yml"))
	if _, err := Locate(home); err == nil {
		t.Error("a folder was taken for an infra.yml")
	}

	for _, tt := range []struct{ flag, infra, want string }{
		{"", here, filepath.Join(project, ".berth")},
		{"", "infra.yml", filepath.Join(project, ".berth")},
		{"", own, filepath.Join(home, "data", "berth")},
		{"d", own, "d"},
	} {
		if got := DataDir(tt.flag, tt.infra); got != tt.want {
			t.Errorf("DataDir(%q, %q) = %q, want %q", tt.flag, tt.infra, got, tt.want)
		}
	}
	t.Setenv("BERTH_DATA", "/data")
	if got := DataDir("", here); got != "/data" {
		t.Errorf("DataDir = %q, want BERTH_DATA's", got)
	}
}

func TestReferencesOfAURLAreEscaped(t *testing.T) {
	t.Setenv("DB_PASSWORD", "p@ss/w+rd?")
	t.Setenv("DB", "postgres://ann:p%40ss@host/db")
	for text, want := range map[string]string{
		"postgres://ann:${env:DB_PASSWORD}@host/db": "postgres://ann:p%40ss%2Fw%2Brd%3F@host/db",
		"${env:DB}":              "postgres://ann:p%40ss@host/db", // the whole of it is as it is
		"postgres://ann@host/db": "postgres://ann@host/db",
		"":                       "",
	} {
		if got, err := ExpandURL(text); err != nil || got.Reveal() != want {
			t.Errorf("%s became %s, %v", text, got.Reveal(), err)
		}
	}
	if _, err := ExpandURL("postgres://ann:${env:NOT_SET_ANYWHERE}@host/db"); err == nil {
		t.Error("a variable that isn't set was taken")
	}
}
