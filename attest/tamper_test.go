package attest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// mutate returns, by path, the value with each leaf changed and with each member removed.
func mutate(value any) map[string]any {
	out := map[string]any{}
	switch v := value.(type) {
	case map[string]any:
		for name, below := range v {
			without := copyMap(v)
			delete(without, name)
			out["-"+name] = without
			for path, changed := range mutate(below) {
				with := copyMap(v)
				with[name] = changed
				out[name+"."+path] = with
			}
		}
	case []any:
		for i, below := range v {
			out[fmt.Sprintf("-%d", i)] = slices.Delete(slices.Clone(v), i, i+1)
			for path, changed := range mutate(below) {
				with := slices.Clone(v)
				with[i] = changed
				out[fmt.Sprintf("%d.%s", i, path)] = with
			}
		}
		out["+"] = append(slices.Clone(v), v...)
	case string:
		out["changed"] = flip(v)
		out["emptied"] = ""
	case bool:
		out["changed"] = !v
	case float64:
		out["changed"] = v + 1
	}
	return out
}

func copyMap(m map[string]any) map[string]any {
	c := map[string]any{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

// flip changes a character in the middle, staying within base64 and hex.
func flip(s string) string {
	if s == "" {
		return "x"
	}
	b, i := []byte(s), len(s)/2
	if b[i] == 'a' {
		b[i] = 'b'
	} else {
		b[i] = 'a'
	}
	return string(b)
}

func TestEveryFieldOfTheBundleCounts(t *testing.T) {
	k := newKey(t)
	a := signed(t, k, nil)
	var bundle map[string]any
	if err := json.Unmarshal(a.Bundle, &bundle); err != nil {
		t.Fatal(err)
	}
	all := mutate(bundle)
	if len(all) < 12 {
		t.Fatalf("only %d mutations", len(all))
	}
	for path, changed := range all {
		text, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := VerifyBundle(text, k.Public(), sha("manifest")); !errors.Is(err, ErrVerification) {
			t.Errorf("%s: %v, %+v; want ErrVerification", path, err, r.Checks)
		}
	}
	t.Logf("%d mutations refused", len(all))
}

func TestEveryFieldOfTheStatementCounts(t *testing.T) {
	k := newKey(t)
	var envelope map[string]any
	if err := json.Unmarshal(signed(t, k, nil).Envelope, &envelope); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(envelope["payload"].(string))
	if err != nil {
		t.Fatal(err)
	}
	var statement any
	if err := json.Unmarshal(payload, &statement); err != nil {
		t.Fatal(err)
	}
	sig := envelope["signatures"].([]any)[0].(map[string]any)["sig"].(string)
	all := mutate(statement)
	if len(all) < 120 {
		t.Fatalf("only %d mutations", len(all))
	}
	for path, changed := range all {
		text, err := json.Marshal(changed)
		if err != nil {
			t.Fatal(err)
		}
		bundle := fmt.Sprintf(`{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":%q}},"dsseEnvelope":{"payloadType":%q,"payload":%q,"signatures":[{"sig":%q}]}}`,
			BundleMediaType, k.Hint(), payloadType, base64.StdEncoding.EncodeToString(text), sig)
		r, err := VerifyBundle([]byte(bundle), k.Public(), sha("manifest"))
		if !errors.Is(err, ErrVerification) || !strings.Contains(err.Error(), CheckSignature) || r.Statement != nil {
			t.Errorf("%s: %v; want the signature to fail and nothing of the statement shown", path, err)
		}
	}
	t.Logf("%d mutations refused", len(all))
}
