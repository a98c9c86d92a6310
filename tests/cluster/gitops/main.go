// Command gitops-health says what Argo CD and Flux would say of objects: it runs a health script in
// the Lua of Argo CD and the expressions of a Kustomization in the CEL of Flux, with the same libraries.
//
//	gitops-health HEALTH.lua KUSTOMIZATION.yaml <OBJECTS (one JSON a line) >VERDICTS (one JSON a line)
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/google/cel-go/cel"
	lua "github.com/yuin/gopher-lua"
	"sigs.k8s.io/yaml"
)

type verdict struct {
	Argo    string `json:"argo"`
	Message string `json:"message"`
	Flux    string `json:"flux"`
}

type kustomization struct {
	Spec struct {
		HealthCheckExprs []struct{ InProgress, Failed, Current string }
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gitops-health:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("needs a Lua file and a YAML file")
	}
	script, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		return err
	}
	var flux kustomization
	if err := yaml.Unmarshal(text, &flux); err != nil {
		return err
	}
	if len(flux.Spec.HealthCheckExprs) != 1 {
		return fmt.Errorf("%s: not exactly one entry in spec.healthCheckExprs", os.Args[2])
	}
	checks := flux.Spec.HealthCheckExprs[0]
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var object map[string]any
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			return err
		}
		said, err := argo(string(script), object)
		if err != nil {
			return err
		}
		said.Flux = "InProgress" // when no expression holds
		for _, check := range []struct{ status, expression string }{
			{"InProgress", checks.InProgress}, {"Failed", checks.Failed}, {"Current", checks.Current},
		} {
			holds, err := evaluate(check.expression, object)
			if err != nil {
				return fmt.Errorf("%s: %w", check.status, err)
			}
			if holds {
				said.Flux = check.status
				break
			}
		}
		if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
			return err
		}
	}
	return lines.Err()
}

// evaluate gives an expression the fields of the object as variables.
func evaluate(expression string, object map[string]any) (bool, error) {
	var fields []cel.EnvOption
	for name := range object {
		fields = append(fields, cel.Variable(name, cel.DynType))
	}
	env, err := cel.NewEnv(fields...)
	if err != nil {
		return false, err
	}
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return false, issues.Err()
	}
	program, err := env.Program(ast)
	if err != nil {
		return false, err
	}
	value, _, err := program.Eval(object)
	if err != nil {
		return false, err
	}
	holds, ok := value.Value().(bool)
	if !ok {
		return false, fmt.Errorf("%q is no boolean", expression)
	}
	return holds, nil
}

// argo runs the script with the object as obj and, as Argo CD does, without most libraries.
func argo(script string, object map[string]any) (verdict, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		state.Push(state.NewFunction(library.open))
		state.Push(lua.LString(library.name))
		state.Call(1, 0)
	}
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(script); err != nil {
		return verdict{}, err
	}
	answer, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return verdict{}, fmt.Errorf("the script returns no table")
	}
	field := func(name string) string { return lua.LVAsString(answer.RawGetString(name)) }
	return verdict{Argo: field("status"), Message: field("message")}, nil
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case string:
		return lua.LString(value)
	case float64:
		return lua.LNumber(value)
	case bool:
		return lua.LBool(value)
	case []any:
		table := state.NewTable()
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for name, item := range value {
			table.RawSetString(name, toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
