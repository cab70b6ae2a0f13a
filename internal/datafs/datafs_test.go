package datafs

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

const token = "the token"

// served is a server on a folder, and a client of it.
type served struct {
	*Client
	t      *testing.T
	dir    string
	server *Server
}

func serve(t *testing.T, readOnly bool) *served {
	t.Helper()
	dir := t.TempDir()
	server := NewServer(dir, "/data", readOnly, TokenSum(token))
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	address := listening.Listener.Addr().String()
	client := NewClient(func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", address) }, token)
	t.Cleanup(client.Close)
	return &served{client, t, dir, server}
}

func (s *served) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) names(relative string, recursive bool) ([]string, error) {
	var names []string
	for e, err := range s.List(s.t.Context(), relative, recursive) {
		if err != nil {
			return names, err
		}
		names = append(names, e.Path)
	}
	return names, nil
}

func (s *served) get(relative string, recursive bool) (data []byte, end *berth.DataEnd, err error) {
	for chunk, err := range s.Get(s.t.Context(), relative, recursive) {
		if err != nil {
			return data, nil, err
		}
		data, end = append(data, chunk.Data...), chunk.End
	}
	return data, end, nil
}

func (s *served) put(relative string, put berth.DataPut, content io.Reader) (berth.DataEntry, error) {
	put.Path = relative
	return s.Put(s.t.Context(), strings.TrimSuffix(relative, "/"), put, content)
}

// left are the names of all that is in the folder, temporary names among them.
func (s *served) left() []string {
	s.t.Helper()
	var names []string
	if err := fs.WalkDir(os.DirFS(s.dir), ".", func(path string, _ fs.DirEntry, err error) error {
		if path != "." {
			names = append(names, path)
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return names
}

func wantCode(t *testing.T, what string, err error, code berth.ErrorCode, words ...string) {
	t.Helper()
	if berth.CodeOf(err) != code {
		t.Errorf("%s: %v, which is %q; want %q", what, err, berth.CodeOf(err), code)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %q is not in %q", what, word, err)
		}
	}
}

// What is put is what is got, whatever its size.
func TestPutAndGetGiveTheSameBytes(t *testing.T) {
	s := serve(t, false)
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3*bufferSize + 17} {
		want := make([]byte, size)
		_, _ = rand.Read(want)
		entry, err := s.put("deep/er/file", berth.DataPut{Mode: 0o640}, bytes.NewReader(want))
		if err != nil || entry.Path != "/data/deep/er/file" || entry.Size != int64(size) || entry.Mode != "0640" || entry.Type != berth.DataFile {
			t.Fatalf("%d bytes: %+v, %v", size, entry, err)
		}
		got, end, err := s.get("deep/er/file", false)
		if err != nil || !bytes.Equal(got, want) || end == nil || end.Size != int64(size) {
			t.Fatalf("%d bytes: got %d, %+v, %v", size, len(got), end, err)
		}
	}
	if left := s.left(); !slices.Equal(left, []string{"deep", "deep/er", "deep/er/file"}) {
		t.Errorf("left behind: %q", left)
	}
}

// A copy that breaks off leaves what was there before, and nothing beside it.
func TestPutThatBreaksOffChangesNothing(t *testing.T) {
	s := serve(t, false)
	s.write("file", "before")
	broken := errors.New("the disk here is gone")
	_, err := s.put("file", berth.DataPut{}, io.MultiReader(strings.NewReader(strings.Repeat("x", 2*chunkSize)), failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("the reader's own error is not told: %v", err)
	}
	_, err = s.put("folder", berth.DataPut{Directory: true}, io.MultiReader(archive(t, "a", "b"), failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("of a directory: %v", err)
	}
	deadline := time.Now().Add(5 * time.Second) // the server sees it in its own time
	for !slices.Equal(s.left(), []string{"file"}) && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	if data, err := os.ReadFile(filepath.Join(s.dir, "file")); err != nil || string(data) != "before" || !slices.Equal(s.left(), []string{"file"}) {
		t.Errorf("%q, %v, left %q", data, err, s.left())
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// What came changed on the way is not put, and what was cut is not whole.
func TestSumsAreCompared(t *testing.T) {
	s := serve(t, false)
	request := httptest.NewRequest(http.MethodPut, contentPath+"?path=file", strings.NewReader("what came"))
	request.Header.Set("Authorization", "Bearer "+token)
	request.Trailer = http.Header{sumTrailer: {TokenSum("what was sent")}}
	answer := httptest.NewRecorder()
	s.server.ServeHTTP(answer, request)
	if answer.Code != http.StatusServiceUnavailable || len(s.left()) != 0 {
		t.Errorf("%d %s, left %q", answer.Code, answer.Body, s.left())
	}

	for name, handler := range map[string]http.HandlerFunc{
		"changed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(entryHeader, `"{\"path\":\"/data/f\"}"`)
			w.Header().Set("Trailer", sumTrailer)
			_, _ = w.Write([]byte("what came"))
			w.Header().Set(sumTrailer, TokenSum("what was sent"))
		},
		"without a sum": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(entryHeader, `"{\"path\":\"/data/f\"}"`)
			_, _ = w.Write([]byte("what came"))
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(entryHeader, `"{\"path\":\"/data/f\"}"`)
			w.Header().Set("Trailer", sumTrailer)
			_, _ = w.Write([]byte("what came"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		listening := httptest.NewServer(handler)
		client := NewClient(func(context.Context) (net.Conn, error) { return net.Dial("tcp", listening.Listener.Addr().String()) }, token)
		var last berth.DataChunk
		var err error
		for chunk, e := range client.Get(t.Context(), "f", false) {
			last, err = chunk, e
		}
		if err == nil || last.End != nil {
			t.Errorf("%s: %+v, %v", name, last, err)
		}
		client.Close()
		listening.Close()
	}
}

// Whole directories go there and back, with modes, symlinks and odd names.
func TestDirectoriesAreCopiedWhole(t *testing.T) {
	s := serve(t, false)
	from := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"a": 0o644, "run.sh": 0o755, "secret": 0o400, "d/e/f": 0o644, "d/äöü \n\\": 0o600} {
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": "d/e/f", "away": "/etc/passwd", "nowhere": "nosuch"} {
		if err := os.Symlink(target, filepath.Join(from, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(from, "empty"), 0o555); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(from, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(from)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var packed bytes.Buffer
	if skipped, err := Pack(root, &packed); err != nil || skipped != 1 {
		t.Fatalf("skipped %d, %v", skipped, err)
	}
	if _, err := s.put("copy", berth.DataPut{Directory: true}, bytes.NewReader(packed.Bytes())); err != nil {
		t.Fatal(err)
	}
	entry, err := s.put("copy/", berth.DataPut{Directory: true, Name: "within"}, archive(t, "x"))
	if err != nil || entry.Path != "/data/copy/within" {
		t.Errorf("into a directory: %+v, %v", entry, err)
	}
	_, err = s.put("copy", berth.DataPut{Directory: true, Name: "within"}, archive(t, "y"))
	wantCode(t, "a directory that is there", err, berth.CodeConflict, "/data/copy/within exists already")
	wantCode(t, "a directory without recursive", func() error { _, _, err := s.get("copy", false); return err }(), berth.CodeInvalid, "/data/copy is a directory")

	back, end, err := s.get("copy", true)
	if err != nil || end.Skipped != 0 {
		t.Fatalf("%+v, %v", end, err)
	}
	to := t.TempDir()
	toRoot, err := os.OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer toRoot.Close()
	if err := Unpack(toRoot, bytes.NewReader(back)); err != nil {
		t.Fatal(err)
	}
	want, got := described(t, from), described(t, to)
	want = slices.DeleteFunc(want, func(line string) bool { return strings.HasPrefix(line, "pipe ") })
	got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, "within") })
	if !slices.Equal(want, got) {
		t.Errorf("want %q\n got %q", want, got)
	}
	_ = os.Chmod(filepath.Join(to, "empty"), 0o755)
}

func described(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, dir+"/") + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(data) + " " + info.ModTime().UTC().Format(time.RFC3339)
		}
		if target, err := os.Readlink(path); err == nil {
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}

func archive(t *testing.T, names ...string) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// No path, symlink or archive reaches anything outside of what is served.
func TestNothingOutsideIsReached(t *testing.T) {
	s := serve(t, false)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("not yours"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"file": outside, "folder": filepath.Dir(outside), "up": "../../..", "inside": "real"} {
		if err := os.Symlink(target, filepath.Join(s.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	s.write("real/x", "mine")
	for _, path := range []string{"file", "folder/outside", "up", "up/etc/passwd"} {
		data, _, err := s.get(path, true)
		wantCode(t, "get "+path, err, berth.CodeForbidden, "leads out")
		if len(data) > 0 {
			t.Errorf("get %s gave %q", path, data)
		}
	}
	_, err := s.put("folder/new", berth.DataPut{}, strings.NewReader("x"))
	wantCode(t, "put", err, berth.CodeForbidden, "leads out")
	if err := s.Remove(t.Context(), "folder/outside", true); berth.CodeOf(err) != berth.CodeForbidden {
		t.Errorf("rm: %v", err)
	}
	if names, err := s.names("folder", true); err != nil || !slices.Equal(names, []string{"/data/folder"}) {
		t.Errorf("ls of a link that leads out: %q, %v", names, err)
	}
	if data, _, err := s.get("inside/x", false); err != nil || string(data) != "mine" {
		t.Errorf("a symlink within: %q, %v", data, err)
	}
	for _, path := range []string{"..", "../x", "/etc/passwd", "a/../../b", ""} {
		_, err := s.names(path, false)
		wantCode(t, "ls "+path, err, berth.CodeInvalid)
	}
	for _, name := range []string{"../evil", "/evil", "a/../../evil"} {
		_, err := s.put("unpacked", berth.DataPut{Directory: true}, archive(t, name))
		wantCode(t, "an archive with "+name, err, berth.CodeInvalid, "leads out")
	}
	var trap bytes.Buffer
	w := tar.NewWriter(&trap)
	_ = w.WriteHeader(&tar.Header{Name: "l", Linkname: filepath.Dir(outside), Typeflag: tar.TypeSymlink})
	_ = w.WriteHeader(&tar.Header{Name: "l/outside", Mode: 0o644, Typeflag: tar.TypeReg})
	_ = w.Close()
	_, err = s.put("unpacked", berth.DataPut{Directory: true}, &trap)
	wantCode(t, "an archive that writes through its own symlink", err, berth.CodeForbidden)
	// Removing a link removes the link.
	if err := s.Remove(t.Context(), "folder", true); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "not yours" {
		t.Errorf("what is outside: %q, %v", data, err)
	}
}

// Each refusal has a code and says what to do about it.
func TestRefusals(t *testing.T) {
	s := serve(t, false)
	s.write("file", "x")
	s.write("folder/file", "x")
	_, _, err := s.get("nosuch", false)
	wantCode(t, "get what isn't there", err, berth.CodeNotFound, "/data/nosuch")
	_, err = s.names("nosuch", false)
	wantCode(t, "ls what isn't there", err, berth.CodeNotFound, "/data/nosuch")
	wantCode(t, "rm what isn't there", s.Remove(t.Context(), "nosuch", true), berth.CodeNotFound)
	wantCode(t, "rm a directory", s.Remove(t.Context(), "folder", false), berth.CodeInvalid, "-r")
	wantCode(t, "rm the mount", s.Remove(t.Context(), ".", true), berth.CodeInvalid, "the mount itself")
	_, err = s.put("folder", berth.DataPut{}, strings.NewReader("x"))
	wantCode(t, "put a file without a name into a directory", err, berth.CodeInvalid, "/data/folder is a directory")
	_, err = s.put("file/below", berth.DataPut{}, strings.NewReader("x"))
	wantCode(t, "put below a file", err, berth.CodeInvalid, "no directory")
	_, err = s.put(strings.Repeat("n", 300), berth.DataPut{}, strings.NewReader("x"))
	wantCode(t, "a name that is too long", err, berth.CodeInvalid, "too long")
	if err := syscall.Mkfifo(filepath.Join(s.dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.get("pipe", false)
	wantCode(t, "a pipe", err, berth.CodeInvalid, "neither a file nor a directory")

	readOnly := serve(t, true)
	readOnly.write("file", "x")
	_, err = readOnly.put("file", berth.DataPut{}, strings.NewReader("y"))
	wantCode(t, "put where it is read-only", err, berth.CodeForbidden, "read-only")
	wantCode(t, "rm where it is read-only", readOnly.Remove(t.Context(), "file", false), berth.CodeForbidden, "read-only")
	for err, code := range map[error]berth.ErrorCode{
		syscall.ENOSPC: berth.CodeExhausted, syscall.EDQUOT: berth.CodeExhausted, syscall.EACCES: berth.CodeForbidden, syscall.EROFS: berth.CodeForbidden, syscall.ENOTCONN: berth.CodeUnavailable, syscall.EIO: berth.CodeUnavailable,
	} {
		wantCode(t, err.Error(), explained("/data/x", &fs.PathError{Op: "write", Path: "x", Err: err}), code, "/data/x")
	}
}

// A list is by name, and recursive a directory comes before what is in it.
func TestListIsInOrder(t *testing.T) {
	s := serve(t, false)
	for _, name := range []string{"b", "a/2", "a/1", "c/d/e"} {
		s.write(name, name)
	}
	if got, err := s.names(".", false); err != nil || !slices.Equal(got, []string{"/data/a", "/data/b", "/data/c"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := s.names(".", true); err != nil || !slices.Equal(got, []string{"/data/a", "/data/a/1", "/data/a/2", "/data/b", "/data/c", "/data/c/d", "/data/c/d/e"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := s.names("a/1", false); err != nil || !slices.Equal(got, []string{"/data/a/1"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// Without the token nothing is told, and it isn't idle while somebody reads.
func TestTokenAndIdleness(t *testing.T) {
	s := serve(t, false)
	s.write("file", "x")
	for _, wrong := range []string{"", "another", TokenSum(token)} {
		s.token = wrong
		_, err := s.names(".", false)
		wantCode(t, "token "+wrong, err, berth.CodeUnauthorized)
	}
	s.token = token
	if idle := s.server.Idle(); idle <= 0 {
		t.Errorf("idle for %s", idle)
	}
	for range s.Get(t.Context(), "file", false) {
		break
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
}
