package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// maxReference bounds what a file may hold that ${file:} puts into a string.
const maxReference = 1 << 20

// wholeSecret is the short form of a reference into secrets.yml.
var wholeSecret = regexp.MustCompile(`^s\$([A-Za-z0-9_.-]+)$`)

// references resolves what strings of infra.yml refer to: ${env:NAME},
// ${file:PATH} and ${secret:KEY}, anywhere in a string, s$KEY as a whole one;
// $${ is a literal ${. Its errors name what is referred to, never a value.
type references struct {
	dir     string // of infra.yml
	env     func(string) (string, bool)
	files   []string            // that were referred to, also those that are missing
	secrets map[string]string   // of secrets.yml, read when first needed
	escape  func(string) string // of a value that is a part of a text; nil: none
}

// expand replaces the references of a text, and says whether there were any.
func (r *references) expand(text string) (string, bool, error) {
	if m := wholeSecret.FindStringSubmatch(text); m != nil {
		value, err := r.secret(m[1])
		return value, true, err
	}
	if !strings.Contains(text, "${") {
		return text, false, nil
	}
	var out strings.Builder
	had := false
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			out.WriteString(text)
			return out.String(), had, nil
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			out.WriteString(literal + "${")
			text = rest
			continue
		}
		reference, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", true, errors.New("a reference begins with ${ and has no }; for a literal ${ write $${")
		}
		value, err := r.resolve(reference)
		if err != nil {
			return "", true, err
		}
		if r.escape != nil && (before != "" || after != "" || had) {
			value = r.escape(value)
		}
		out.WriteString(before + value)
		text, had = after, true
	}
}

func (r *references) resolve(reference string) (string, error) {
	kind, name, _ := strings.Cut(reference, ":")
	if name != "" {
		switch kind {
		case "env":
			value, ok := r.env(name)
			if !ok {
				return "", fmt.Errorf("${env:%s}: the environment variable %s is not set", name, name)
			}
			return value, nil
		case "file":
			return r.file(name)
		case "secret":
			return r.secret(name)
		}
	}
	return "", fmt.Errorf("${%s}: write ${env:NAME}, ${file:PATH} or ${secret:KEY}; for a literal ${ write $${", reference)
}

func (r *references) file(name string) (string, error) {
	path := r.absolute(name)
	r.files = append(r.files, path)
	data, err := readSmall(path)
	if err != nil {
		return "", fmt.Errorf("${file:%s}: %w", name, err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}

// absolute makes a path absolute; it is relative to infra.yml.
func (r *references) absolute(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.dir, path)
}

func (r *references) secret(key string) (string, error) {
	const where = "secrets.yml"
	path := filepath.Join(r.dir, where)
	if r.secrets == nil {
		r.files = append(r.files, path)
		secrets, err := readSecrets(path)
		if err != nil {
			return "", fmt.Errorf("${secret:%s}: %w", key, err)
		}
		r.secrets = secrets
	}
	value, ok := r.secrets[key]
	if !ok {
		return "", fmt.Errorf("${secret:%s}: there is no %s in %s", key, key, path)
	}
	return value, nil
}

// ExpandURL replaces the references of a URL that is given beside infra.yml, such
// as ${env:NAME} and ${file:PATH}. Paths are relative to the working directory;
// a value that is a part of the URL is escaped as it has to be there.
func ExpandURL(text string) (berth.Secret, error) {
	r := references{dir: ".", env: os.LookupEnv, escape: func(value string) string { return strings.ReplaceAll(url.QueryEscape(value), "+", "%20") }}
	value, _, err := r.expand(text)
	return berth.Secret(value), err
}

// Secret returns the value of a key of the secrets.yml beside an infra.yml, as
// it is now. The error is CodeInvalid and names the key.
func Secret(infraPath, key string) (berth.Secret, error) {
	r := references{dir: filepath.Dir(infraPath)}
	value, err := r.secret(key)
	if err != nil {
		return "", berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	return berth.Secret(value), nil
}

// readSecrets reads a flat map of strings that nobody else may read.
func readSecrets(path string) (map[string]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s; write one with lines KEY: \"value\" and mode 0600", path)
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	doc, err := yamlstrict.Parse(displayName(path), data)
	if err != nil {
		return nil, err
	}
	secrets := map[string]string{}
	for _, entry := range doc.Root().Entries() {
		secrets[entry.Key] = entry.Text()
	}
	return secrets, doc.Err()
}

// readSmall reads a regular file: a pipe or a device would hold us for ever.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReference+1))
	if err == nil && len(data) > maxReference {
		err = fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return data, err
}
