package config

import (
	"os"
	"path/filepath"

	"github.com/berth-run/berth"
)

// Locate returns the absolute path of the infra.yml to use: the flag's,
// BERTH_INFRA's, the one in the working directory, then the user's own. When
// there is none it is the one in the working directory, for who writes it.
func Locate(flag string) (string, error) {
	path := flag
	if path == "" {
		path = os.Getenv("BERTH_INFRA")
	}
	if path == "" {
		path = "infra.yml"
		if own := userFile(); !exists(path) && own != "" && exists(own) {
			path = own
		}
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", berth.Errorf(berth.CodeInvalid, "infra.yml can't be found: %w", err)
	}
	if info, err := os.Stat(absolute); err == nil && info.IsDir() {
		return "", berth.Errorf(berth.CodeInvalid, "%s is a folder; name the file infra.yml itself", absolute)
	}
	return absolute, nil
}

// DataDir returns the data directory that belongs to an infra.yml: the flag's,
// BERTH_DATA's, the user's own for the user's own infra.yml, .berth beside it
// for any other.
func DataDir(flag, infraPath string) string {
	if flag != "" {
		return flag
	}
	if dir := os.Getenv("BERTH_DATA"); dir != "" {
		return dir
	}
	if absolute, err := filepath.Abs(infraPath); err == nil {
		infraPath = absolute
	}
	if infraPath == userFile() {
		if dir := xdg("XDG_DATA_HOME", ".local/share"); dir != "" {
			return filepath.Join(dir, "berth")
		}
	}
	return filepath.Join(filepath.Dir(infraPath), ".berth")
}

// userFile is the user's own infra.yml, or "" where there is no home.
func userFile() string {
	dir := xdg("XDG_CONFIG_HOME", ".config")
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "berth", "infra.yml")
}

// xdg is a base directory of the XDG specification, which ignores relative ones.
func xdg(variable, below string) string {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, below)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
