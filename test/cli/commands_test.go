package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// commands are what scripts have beside testscript's own.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"exits":  exits,
	"field":  field,
	"keep":   keep,
	"token":  makeToken,
	"server": controlServer,
	"get":    get,
}

// exits CODE COMMAND...: the command ends with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// field PATH VALUE: the last output is JSON in which the field at the path
// (such as 0.spec.args, or length) has that value, as JSON without blanks; with ! it hasn't.
// An asterisk stands for any value but null.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: field PATH VALUE")
	}
	var value any
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		ts.Fatalf("the output is not JSON: %v", err)
	}
	for _, name := range strings.Split(args[0], ".") {
		switch at := value.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				ts.Fatalf("there is no field %s of %s", name, args[0])
			}
			value = next
		case []any:
			i, err := strconv.Atoi(name)
			if name == "length" {
				value = json.Number(strconv.Itoa(len(at)))
				continue
			}
			if err != nil || i >= len(at) {
				ts.Fatalf("there is no element %s of %s", name, args[0])
			}
			value = at[i]
		default:
			ts.Fatalf("%s has nothing below %v", args[0], value)
		}
	}
	var got bytes.Buffer
	encoder := json.NewEncoder(&got)
	encoder.SetEscapeHTML(false)
	ts.Check(encoder.Encode(value))
	text := strings.TrimSpace(got.String())
	is := text == args[1] || args[1] == "*" && text != "null"
	if is == neg {
		ts.Fatalf("%s is %s, want %s (not: %t)", args[0], text, args[1], neg)
	}
}

// keep VARIABLE: the last output becomes the value of an environment variable.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keep VARIABLE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func serverOf(ts *testscript.TestScript) *serverProcess {
	s, ok := ts.Value(serverKey{}).(*serverProcess)
	if !ok {
		ts.Fatalf("there is no server; begin the script with [!server] skip")
	}
	return s
}

// token VARIABLE NAME [FLAG...]: makes a token on the server's machine.
func makeToken(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: token VARIABLE NAME [FLAG...]")
	}
	secret, err := serverOf(ts).berth(append([]string{"server", "token", "create"}, args[1:]...)...)
	ts.Check(err)
	ts.Setenv(args[0], secret)
}

// server stop|start|restart|kill|says TEXT|berth ARG...: acts on the server, or
// on its machine.
func controlServer(ts *testscript.TestScript, neg bool, args []string) {
	s := serverOf(ts)
	if len(args) == 0 {
		ts.Fatalf("usage: server stop|start|restart|kill|says TEXT|berth ARG...")
	}
	var err error
	switch args[0] {
	case "stop":
		err = s.stop()
	case "start":
		err = s.start()
	case "restart":
		err = s.restart()
	case "kill":
		err = s.kill()
	case "berth":
		var out string
		out, err = s.berth(args[1:]...)
		fmt.Fprintln(ts.Stdout(), out)
	case "says":
		if strings.Contains(s.stderr.String(), args[1]) == neg {
			ts.Fatalf("the server said (not wanted: %t) %q:\n%s", neg, args[1], s.stderr.String())
		}
		return
	default:
		ts.Fatalf("server %s is not known", args[0])
	}
	if neg != (err != nil) {
		ts.Fatalf("server %s: %v", strings.Join(args, " "), err)
	}
}

// get STATUS METHOD PATH [bearer TOKEN | basic TOKEN]: asks the server over
// HTTP; what it answers becomes the output, its headers the error output.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 && len(args) != 5 {
		ts.Fatalf("usage: get STATUS METHOD PATH [bearer TOKEN | basic TOKEN]")
	}
	s := serverOf(ts)
	pem, err := os.ReadFile(s.ca())
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(args[1], s.url+args[2], http.NoBody)
	ts.Check(err)
	if len(args) == 5 {
		if args[3] == "basic" {
			request.SetBasicAuth("anyone", args[4])
		} else {
			request.Header.Set("Authorization", "Bearer "+args[4])
		}
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	ts.Check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n", body)
	_ = response.Header.Write(ts.Stderr())
	if strconv.Itoa(response.StatusCode) != args[0] {
		ts.Fatalf("status %d, want %s: %s", response.StatusCode, args[0], body)
	}
}
